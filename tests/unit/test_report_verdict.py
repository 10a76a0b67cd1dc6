"""What the headline says was won: at which speed, accuracy and cost, over how many seeds; or nothing."""

from dataclasses import replace

import pytest

from darts_core.report.results import results_section
from darts_core.report.rows import Latency, ModelRow
from darts_core.report.verdict import outcome


def row(name, ms, accuracies, seconds=None):
    extra = {} if seconds is None else {"device_seconds": seconds}
    return ModelRow(
        name, runtime="onnx", accuracies=accuracies, latency={32: Latency(ms)}, extra=extra
    )


BASE = row("resnet8", 0.4, (0.98, 0.99), 100.0)


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (row("exported", 0.1, (0.985, 0.99), 105.0),
         "The exported (onnx) model is 4× faster than resnet8 (onnx) and equally accurate (+0.25 points, "
         "within the spread), at equal cost (2 seeds)."),
        (row("exported", 0.1, (0.9, 0.9), 300.0),
         "Nothing was won: the exported (onnx) model is 4× faster than resnet8 (onnx) and 8.50 points less "
         "accurate, for 3 times its device time (2 seeds)."),
        (row("exported", 0.8, (1.0, 1.0)),
         "Nothing was won: the exported (onnx) model is 2× slower than resnet8 (onnx) and 1.50 points more "
         "accurate (2 seeds)."),
        (row("exported", 0.4, (1.0,), 50.0),
         "The exported (onnx) model is no faster than resnet8 (onnx) and 1.50 points more accurate, for 0.5 "
         "times its device time (1 seed)."),
        (row("exported", 0.3999, (0.98, 0.99)),
         "Nothing was won: the exported (onnx) model is no faster than resnet8 (onnx) and equally accurate "
         "(+0.00 points, within the spread) (2 seeds)."),
    ],
)  # fmt: skip
def test_the_outcome_in_one_sentence(ours, words):
    assert outcome(ours, BASE, 32) == words


@pytest.mark.parametrize(("examples", "words"), [
    (359, "equally accurate (+0.56 points, within the spread)"), (35_900, "0.56 points more accurate"),
])  # fmt: skip
def test_a_gain_is_one_only_beyond_what_the_test_examples_can_show(examples, words):
    base, ours = row("resnet8", 0.4, (0.98886,)), row("exported", 0.1, (0.99443,))
    for each in (base, ours):
        each.extra["test_examples"] = examples
    assert f"faster than resnet8 (onnx) and {words} (1 seed)" in outcome(ours, base, 32)


def test_the_page_does_not_deny_what_its_headline_says():
    """Faster, and equal within the spread: that is both faster and at least as accurate."""
    rows = [replace(BASE, baseline=True, kind="baseline"), row("exported", 0.1, (0.98, 0.985))]
    assert "4× faster than resnet8 (onnx) and equally accurate (-0.25 points" in outcome(
        rows[1], rows[0], 32
    )
    assert "nothing is both faster" not in results_section(rows, "").body
    for ours in (row("exported", 0.1, (0.9, 0.9)), row("exported", 0.3999, (0.98, 0.99))):
        assert "nothing is both faster" in results_section([rows[0], ours], "").body
