"""Is the exported file the same function? Judged against eager fp32 before it gets its name."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.errors import ExportError
from darts_core.metric import ACCURACY, Metric
from darts_core.sample_inputs import draw_inputs

__all__ = [
    "FP32_LIMIT",
    "INT8_POINTS",
    "LOW_PRECISION_AGREEMENT",
    "Check",
    "compare_on_fresh_inputs",
    "compare_on_split",
    "exact_products",
    "judge",
    "tf32",
]

FP32_LIMIT = 1e-4  # largest |difference| / largest |output|
LOW_PRECISION_AGREEMENT = 0.995  # share of val samples with the same answer
INT8_POINTS = 0.5  # points (per cent) of a metric that INT8 may lose on val
# so many numbers of each network's outputs are compared at once
_GROUP = 2**26
# from this size on, outputs of nearly one value are no answers: what rules answers out, such as -1e9
_FILL, _ONE_VALUE = 1e4, 0.01

Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """What was found: relative error on random inputs, agreement and the task's metric on a split.

    `finite` is the share of its samples without NaN or infinity among their outputs, or with some in the
    reference, too.
    """

    relative_error: float
    agreement: float | None = None
    value: float | None = None
    reference_value: float | None = None
    samples: int = 0
    metric: Metric = ACCURACY
    finite: float = 1.0

    @property
    def lost(self) -> float:
        """Points (per cent) lost: of a share as it is, of another metric relative to the reference."""
        found, wanted = self.value or 0.0, self.reference_value or 0.0
        drop = self.metric.rating(wanted) - self.metric.rating(found)
        return 100.0 * (drop if self.metric.share else drop / max(abs(wanted), 1e-12))


def exact_products() -> contextlib.AbstractContextManager[None]:
    """Keep TF32 out of fp32 products on a GPU meanwhile; it alone would break the fp32 limit."""
    return tf32(False)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether fp32 matrix products and convolutions may use TF32 meanwhile; restored afterwards."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    # torch has two names for the setting, and reads the older one only where both agree
    older = [(matmul, _older(matmul, matmul)), (cudnn, _older(cudnn, cudnn.conv))]
    newer = [(part, part.fp32_precision) for part in (matmul, cudnn.conv, cudnn.rnn)]
    for backend, _ in older:
        backend.allow_tf32 = allowed
    for part, _ in newer:
        part.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        for backend, before in older:
            backend.allow_tf32 = before
        for part, precision in newer:
            part.fp32_precision = precision


def _older(backend: Any, part: Any) -> bool:
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:  # the user said the other in the newer name
        return bool(part.fp32_precision != "tf32")


def compare_on_fresh_inputs(
    reference: nn.Module,
    runner: Runner,
    input_shape: Sequence[int],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] = (1, 2, 5),
    vocabulary: int = 2,
) -> float:
    """The largest relative error over random inputs drawn anew, one batch of each size.

    Relative to the largest output of the reference, so that small ones do not blow it up; what rules answers
    out (-1e9 in place of a logit) is no such largest one, or the logits beside it could be anything. Of a
    shape (T,), token numbers below `vocabulary` are drawn. Infinity where either gives NaN or infinity; minus
    infinity in both at one place, which rules an answer out, agrees.
    """
    generator = torch.Generator()
    generator.seed()
    pairs = []
    for size in batch_sizes:
        x = draw_inputs(input_shape, size, generator=generator, vocabulary=vocabulary).to(device)
        with torch.inference_mode():
            # a copy: a network may compute in its input
            wanted = reference(x.clone()).double().cpu()
            found = runner(x).double().cpu()
        if found.shape != wanted.shape:
            return math.inf
        told = (found != -math.inf) | (wanted != -math.inf)
        found, wanted = found[told], wanted[told]
        # of the reference, too: a difference to NaN compares with nothing and would count as none
        if not bool(torch.isfinite(found).all() and torch.isfinite(wanted).all()):
            return math.inf
        pairs.append((found, wanted))
    # of all batches together: one sample's largest output may be of one value by chance
    return _relative_error(*(torch.cat(one) for one in zip(*pairs, strict=True)))


def _relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest of `wanted`; fills are judged by themselves.

    Beside fills a difference counts at least relative to 1, the scale of logits: where a single answer is
    left, its log-probability is a rounding error in both.
    """
    if not len(wanted):
        return 0.0
    size, off = wanted.abs(), (found - wanted).abs()
    big = size >= _FILL
    fills = wanted[big]
    if not len(fills) or len(fills) == len(wanted) or not _of_one_value(fills):
        return float(off.max()) / max(float(size.max()), 1e-12)
    beside = float(off[~big].max()) / max(float(size[~big].max()), 1.0)
    return max(beside, float((off[big] / size[big]).max()))


def _of_one_value(values: torch.Tensor) -> bool:
    """Whether they differ by little, as a fill to which logits were added."""
    return float(values.max() - values.min()) <= _ONE_VALUE * float(values.abs().min())


class _Answers:
    """Adds up how far the answers of two networks agree, some batches at a time.

    A task may judge an answer beside the others, so that all of a small split are compared at once; those of
    a long one, of a large vocabulary for instance, would not fit into memory.
    """

    def __init__(self, task: Any) -> None:
        self.task = task
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._numbers = 0
        # (share of equal answers, samples with sound outputs, samples) of what was compared
        self._groups: list[tuple[float, int, int]] = []

    def add(self, output: torch.Tensor, reference: torch.Tensor) -> None:
        """A batch of both."""
        self._waiting.append((output, reference))
        self._numbers += output.numel()
        if self._numbers >= _GROUP:
            self._compare()

    def _compare(self) -> None:
        outputs, references = zip(*self._waiting, strict=True)
        output, reference = torch.cat(outputs), torch.cat(references)
        sound = _sound(output) | ~_sound(reference)
        share = float(self.task.agreement(output, reference))
        self._groups.append((share, int(sound.sum()), len(output)))
        self._waiting, self._numbers = [], 0

    def result(self) -> tuple[float, float, int]:
        """Share of equal answers, share of samples with sound outputs, samples."""
        if self._waiting:
            self._compare()
        samples = sum(size for *_, size in self._groups)
        finite = sum(sound for _, sound, _ in self._groups) / max(samples, 1)
        if len(self._groups) == 1:
            return self._groups[0][0], finite, samples
        alike = sum(share * size for share, _, size in self._groups) / max(samples, 1)
        return alike, finite, samples


def _sound(output: torch.Tensor) -> torch.Tensor:
    """Which samples have neither NaN nor infinity among their outputs, [B]."""
    # minus infinity rules an answer out, as what masks one becomes in a low precision
    return (output < math.inf).reshape(len(output), -1).all(1)


def compare_on_split(
    reference: nn.Module,
    runner: Runner,
    bundle: Any,
    *,
    split: str = "val",
    batch_size: int = 256,
    device: torch.device,
    relative_error: float = 0.0,
) -> Check:
    """How the runner's answers and its metric compare with the reference's on `split`.

    Args:
        reference: what was exported.
        runner: the file that was written.
        bundle: the data.
        split: its samples are asked about.
        batch_size: samples a call.
        device: where both run.
        relative_error: what `compare_on_fresh_inputs` found, for the `Check`.

    Raises:
        ExportError: the split is empty.
    """
    task = bundle.task
    meters = [task.meter(bundle.device) for _ in range(2)]
    answers = _Answers(task)
    for x, y in _batches(bundle, split, batch_size):
        x = x.to(device)
        with torch.inference_mode():
            found = [call(x.clone()).to(y.device).float() for call in (runner, reference)]
        for meter, output in zip(meters, found, strict=True):
            meter.update(output, y)
        answers.add(*found)
    agreement, finite, samples = answers.result()
    if not samples:
        raise ExportError(f"The {split!r} split is empty; exported files cannot be verified on it.")
    own, wanted = (meter.result()[task.metric.name] for meter in meters)
    return Check(relative_error, agreement, own, wanted, samples, task.metric, finite)


def _batches(
    bundle: Any, split: str, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from bundle.batches(split, batch_size, seed=0, epoch=0, drop_last=False, shuffle=False)


def judge(precision: str, check: Check, *, allow_accuracy_loss: bool = False) -> str | None:
    """None if the file may be written, else the sentence that says why not."""
    if precision == "fp32":
        if not check.relative_error <= FP32_LIMIT:
            return (
                f"its outputs differ from eager by {check.relative_error:.2e} of the largest; "
                f"{FP32_LIMIT:.0e} is allowed"
            )
        return None
    broken = _broken(check) if not allow_accuracy_loss else None
    if precision in ("bf16", "fp16"):
        if check.agreement is None:
            return "without a data bundle its agreement with eager on val cannot be checked"
        if broken is not None:
            return broken
        if not check.agreement >= LOW_PRECISION_AGREEMENT and not allow_accuracy_loss:
            return (
                f"it gives the same answer as eager for {check.agreement:.2%} of the {check.samples} val "
                f"samples; {LOW_PRECISION_AGREEMENT:.1%} is required"
            )
        return None
    if check.value is None or check.reference_value is None:
        return f"without a data bundle its {check.metric.words} on val cannot be checked"
    if broken is not None:
        return broken
    before, after = check.metric.text(check.reference_value), check.metric.text(check.value)
    if math.isnan(check.lost) and not allow_accuracy_loss:
        return (
            f"its {check.metric.words} on the {check.samples} val samples is no number to compare ({before} "
            f"in eager, {after} here)"
        )
    # decimals leave a rounding error: 100 * (0.9 - 0.895) is above 0.5
    if check.lost > INT8_POINTS + 1e-9 and not allow_accuracy_loss:
        return (
            f"it loses {check.lost:.2f} {'points' if check.metric.share else '%'} of {check.metric.words} on "
            f"the {check.samples} val samples ({before} to {after}); {INT8_POINTS} is allowed "
            "(allow_accuracy_loss=True writes it all the same)"
        )
    return None


def _broken(check: Check) -> str | None:
    """Why a file of NaN or infinity is refused, whose answers may agree all the same; None for others."""
    if check.finite >= LOW_PRECISION_AGREEMENT:
        return None
    return (
        f"its outputs are NaN or infinite for {1 - check.finite:.2%} of the {check.samples} val samples, for "
        "which eager's are finite"
    )
