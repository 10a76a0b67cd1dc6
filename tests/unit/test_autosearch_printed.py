"""Zero-code: what a script prints is read as a terminal shows it."""

import re
from dataclasses import replace

import pytest
from autosearch_workshop import BASE, log_of, one

from darts_core.autosearch.spec import Objective
from darts_core.autosearch.terminal import Terminal
from darts_core.autosearch.zero_code import _value

ACC = ({"name": "acc", "regex": r"acc[:=] ?([0-9.]+)"},)


def shown(*chunks):
    terminal = Terminal()
    lines = [line for chunk in chunks for line in terminal.feed(chunk.encode())]
    return [*lines, *terminal.finish()]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        (["a\r\nb\n", "c"], ["a", "b", "c"]),
        (["\r 50% acc=0.5", "\r100% acc=0.9\nnext"], ["100% acc=0.9", "next"]),
        # a shorter state leaves no tail of the longer one
        (["\racc 100\racc 99\n"], ["acc 99"]),
        # a bar drawn first, its counter written into it by backspaces, then `\r`
        ([" [=>....] Acc: 0.5" + "\b" * 16 + "1/2\r", " [==>...] Acc: 0.9" + "\b" * 16 + "2/2\n"],
         [" [2/2...] Acc: 0.9"]),
        # colours, also cut in two by the chunks
        (["\x1b[1", "m469/469\x1b[0m acc: 0.98\n"], ["469/469 acc: 0.98"]),
        # a bar that wipes itself away is read as it was
        (["\rloss=0.3\r        \r", "\n"], ["loss=0.3"]),
        (["\rloss=0.3\x1b[2K\rdone acc=1\n"], ["done acc=1"]),
        # nested bars: the inner one is drawn one line below, then the cursor goes up again
        (["\router acc=0.5", "\n\rinner 1\x1b[A", "\n\rinner 2\x1b[A", "\router acc=0.7\n\n"],
         ["outer acc=0.5", "outer acc=0.7", "inner 2"]),
        (["\ud7ff".encode().decode() + "ü\n"], ["\ud7ffü"]),
    ],
)  # fmt: skip
def test_lines_are_what_a_terminal_shows(chunks, lines):
    assert shown(*chunks) == lines


def test_a_character_cut_in_two_by_the_pipe_is_one_character():
    terminal = Terminal()
    raw = "é acc=1\n".encode()
    assert [*terminal.feed(raw[:1]), *terminal.feed(raw[1:])] == ["é acc=1"]


def test_an_endless_line_does_not_eat_the_memory():
    terminal = Terminal()
    for _ in range(40):
        assert list(terminal.feed(b"y" * 2**16)) == []
    assert [len(line) for line in terminal.finish()] == [2**20]


def test_a_redrawn_progress_bar_gives_its_last_state(shop):
    workshop = shop(
        r"""
        import sys
        for epoch in (1, 2):
            for step in (1, 2, 3):
                sys.stdout.write(f"\repoch {epoch}: {step}/3 acc={0.3 * step + 0.01 * epoch:.3f}")
            sys.stdout.write("\n")
        """
    )
    # printed as `acc` and optimised as `accuracy`, which are one metric
    spec = replace(BASE, metrics=ACC, objectives=(Objective("accuracy"),))
    row = one(workshop, spec)
    assert (row["state"], row["training_iteration"]) == ("done", 2), log_of(workshop, row)
    assert (row["values"], row["best_reward"]) == ({"accuracy": 0.92}, 0.92)
    assert row["reward_range"] == [2, 0.91, 0.92]


def test_the_last_match_of_a_long_line_counts(shop):
    workshop = shop(
        """
        bar = "acc: 0.1 " + "=" * 1500
        print(bar, "acc: 0.667", "." * 1500, "acc: 0.992")
        """
    )
    assert one(workshop, replace(BASE, metrics=ACC))["values"]["acc"] == 0.992


def test_a_match_without_a_number_is_passed_over(shop):
    workshop = shop('print("acc=0.7 acc=...")')
    spec = replace(BASE, metrics=({"name": "acc", "regex": r"acc=([0-9.]+)?"},))
    assert one(workshop, spec)["values"]["acc"] == 0.7


def test_metrics_printed_after_the_last_iteration_are_kept(shop):
    workshop = shop(
        """
        for epoch in (1, 2):
            print(f"acc={0.4 * epoch:.1f}")
        print("test_acc 0.75")
        """
    )
    metrics = (
        *({"name": "acc", "regex": r"\bacc=([0-9.]+)"},),
        {"name": "test_acc", "regex": r"test_acc ([0-9.]+)"},
    )
    row = one(workshop, replace(BASE, metrics=metrics))
    assert (row["training_iteration"], row["metrics"]) == (2, {"acc": 0.8, "test_acc": 0.75})


def test_what_is_printed_last_belongs_to_the_iteration_that_the_script_names(shop):
    # as one that goes on from its checkpoint prints
    workshop = shop('print("epoch 7 acc=0.4")\nprint("epoch 8 acc=0.6")\nprint("test_acc 0.5")')
    metrics = (
        {"name": "acc", "regex": r"\bacc=([0-9.]+)"},
        {"name": "training_iteration", "regex": r"epoch (\d+)"},
        {"name": "test_acc", "regex": r"test_acc ([0-9.]+)"},
    )
    row = one(workshop, replace(BASE, metrics=metrics))
    assert (row["training_iteration"], row["metrics"]) == (8, {"acc": 0.6, "test_acc": 0.5})


@pytest.mark.parametrize(
    ("regex", "line", "number"),
    [
        # a small loss of Keras, and the pattern of our own template
        (r"val_loss: ([0-9.]+)", "acc: 0.9 - val_loss: 9.5e-05 - lr: 1e-3", 9.5e-05),
        (r"acc: ([0-9.]+)", "acc: 0.9 - val_loss: 9.5e-05", 0.9),
        (r"loss=([-+.\deE]+)", "loss=0.25 loss=nan", float("nan")),
        (r"loss=([0-9.]+)", "loss=nan loss=0.25", 0.25),
        (r"loss ([0-9.]+)", "loss -inf", float("-inf")),
        (r"loss: (-?\d+\.\d+)", "loss: nan", float("nan")),
        (r"loss: (-?\d+\.\d+)", "loss: -1e-05, acc: 0.5", -1e-05),
        (r"loss (\d\.\d{4})", "loss 9.5e-05", 9.5e-05),
        # a coefficient of determination, a reward: below zero it has a sign
        (r"r2=([0-9.]+)", "r2=-0.35", -0.35),
        (r"reward.*?([0-9.]+)", "reward -12, steps", -12.0),
        (r"r2 ([0-9.]+)", "r2 -.5e-3 (-7%)", -0.5e-3),
        (r"loss -([0-9.]+)", "loss -0.35", 0.35),
        (r"acc ([0-9.]+)", "2026-11-30 top-1 acc 0.5 - 3 of -4", 0.5),
        # words that only look like it
        (r"acc=([0-9.]+)", "[INF] acc=0.5", 0.5),
        (r"\[INF\] acc=([0-9.]+)", "[INF] acc=0.5", 0.5),
        (r"acc ([0-9.]+)", "nano acc 0.5, 7e2f", 0.5),
        (r"acc ([0-9.]+)", "loss nan", None),
    ],
)
def test_a_number_is_read_whole_whatever_the_pattern_takes_of_it(regex, line, number):
    assert _value(re.compile(regex), line) == pytest.approx(number, nan_ok=True)


def test_a_training_that_printed_nan_at_its_end_has_no_result(shop):
    workshop = shop('print("acc=0.9")\nprint("acc=nan")')
    row = one(workshop, replace(BASE, metrics=ACC))
    found = (row["state"], row["values"], row["training_iteration"])
    assert found == ("failed", {"acc": None}, 2), log_of(workshop, row)
