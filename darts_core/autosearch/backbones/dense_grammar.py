"""The dense code: stages split by `-`, one digit 1..4 a layer. Our own grammar; needs no torch."""

from __future__ import annotations

import random

from darts_core.errors import ArchitectureError

__all__ = ["check_dense_code", "mutate_dense", "sample_dense"]

DIGITS = "1234"
MAX_LAYERS = 64


def check_dense_code(code: str) -> str:
    """`code` itself when it is well formed.

    Raises:
        ArchitectureError: it is not; the sentence names the position (from 1).
    """
    previous = "-"
    for position, letter in enumerate(str(code) + "-", start=1):
        if letter not in DIGITS + "-" or (letter == "-" and previous == "-"):
            raise ArchitectureError(
                f"Dense code {str(code)[:80]!r}, position {position}: expected a digit 1..4 (a layer), "
                "with single '-' between stages, such as '112-21'."
            )
        previous = letter
    if len(str(code).replace("-", "")) > MAX_LAYERS:
        raise ArchitectureError(
            f"Dense code {str(code)[:80]!r} has more than {MAX_LAYERS} layers; use fewer."
        )
    return str(code)


def sample_dense(rng: random.Random, *, stages: int = 3, max_layers: int = 4) -> str:
    """A random dense code of `stages` stages with 1..`max_layers` layers each."""
    parts = [
        "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, max_layers)))
        for _ in range(stages)
    ]
    return "-".join(parts)


def mutate_dense(code: str, rng: random.Random) -> str:
    """A code one edit away: one layer's digit changed, one layer added, or one removed."""
    parts = check_dense_code(code).split("-")
    stage = rng.randrange(len(parts))
    digits = list(parts[stage])
    kind = rng.choice(["change", "insert", "remove"] if len(digits) > 1 else ["change", "insert"])
    position = rng.randrange(len(digits))
    if kind == "insert" and len(code.replace("-", "")) < MAX_LAYERS:
        digits.insert(position, rng.choice(DIGITS))
    elif kind == "remove":
        del digits[position]
    else:
        digits[position] = rng.choice([d for d in DIGITS if d != digits[position]])
    parts[stage] = "".join(digits)
    return "-".join(parts)
