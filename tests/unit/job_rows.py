"""A made-up row of a job's trial."""


def row(number, acc, ms=1.0, state="done", **extra):
    return {
        "trial_id": f"t{number}", "number": number, "state": state, "config": {"x": number},
        "values": {"acc": acc, "ms": ms}, **extra,
    }  # fmt: skip
