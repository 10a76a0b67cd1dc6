"""What the launchers share: filter codes, precision modes, launch options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "PRECISIONS",
    "Precision",
    "filter_codes",
    "launch_options",
    "next_power_of_2",
    "on_device_of",
    "pool_code",
]


@dataclass(frozen=True)
class Precision:
    """How numbers are stored and multiplied.

    Attributes:
        name: what the user writes.
        storage: dtype of states and gradients.
        scratch: dtype of depthwise outputs, which only feed a matrix product.
        outputs: dtype of pointwise outputs before their norm.
        dot: Triton's `input_precision` of matrix products.
    """

    name: str
    storage: torch.dtype
    scratch: torch.dtype
    outputs: torch.dtype
    dot: str

    @property
    def splits(self) -> bool:
        """Whether a product splits its operands in two, which takes twice the registers."""
        return self.dot == "tf32x3"


# TF32 products keep 10 mantissa bits of their operands, as fp16 does: storing what only feeds such a
# product in fp16 halves its bytes and rounds it once, where TF32 would round it. A pointwise output is read
# by its norm: one rounding more, of the size of those that made it. What fp16 gives up is range. Small
# values lose nothing that counts, as the norm's eps bounds what they become: half of fp16's smallest step
# times eps^-1/2 is 1e-5 of a normalised value. Beyond 65,504 the value is infinite, and the gradients and the
# next loss are not numbers, which stops a search; the statistics, taken from what was not rounded, stay true.
PRECISIONS = {
    "fp32": Precision("fp32", torch.float32, torch.float32, torch.float32, "tf32x3"),
    "tf32": Precision("tf32", torch.float32, torch.float16, torch.float16, "tf32"),
    "bf16": Precision("bf16", torch.bfloat16, torch.bfloat16, torch.bfloat16, "tf32"),
}


def filter_codes(filters: Sequence[tuple[int, int]]) -> tuple[int, int, int, int]:
    """(code, offsets, taps, halo) of depthwise filters given as (kernel, dilation).

    The code holds 8 bits a filter (kernel, dilation), the offsets 16 bits a filter: where its taps
    start in units of the channel count.
    """
    code = offsets = taps = halo = 0
    for index, (kernel, dilation) in enumerate(filters):
        code |= (kernel | dilation << 4) << (8 * index)
        offsets |= taps << (16 * index)
        taps += kernel * kernel
        halo = max(halo, kernel // 2 * dilation)
    return code, offsets, taps, halo


def pool_code(kernels: Sequence[int]) -> int:
    """Pool sizes in 4 bits each."""
    return sum(kernel << (4 * index) for index, kernel in enumerate(kernels))


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(0, number - 1).bit_length()


def on_device_of(x: Tensor) -> torch.cuda.device:
    """A context in which kernels are launched where `x` lies; nothing for tensors outside of GPUs.

    Triton launches on the current device, which is the first one also where tensors lie on another. Backward
    passes need no context: autograd runs them with the device of their gradients as the current one.
    """
    return torch.cuda.device(x.get_device())


def launch_options(
    warps: int, registers: int = 0, stages: int | None = None, *, overlap: bool = False
) -> dict[str, int]:
    """Triton's options of a launch; a cap of 0 registers is none.

    `overlap` is for kernels that start with `_device.begin` alone.
    """
    options = {"num_warps": warps}
    if registers:
        options["maxnreg"] = registers
    if stages is not None:
        options["num_stages"] = stages
    if overlap:
        options |= {"OVERLAP": True, "launch_pdl": True}
    return options
