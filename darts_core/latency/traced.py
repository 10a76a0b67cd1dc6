"""A module as torch.export's program with a free batch size; what torch prints of a failure is kept back."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.export import ExportedProgram

__all__ = ["exported_program"]

log = logging.getLogger("darts_core")


def exported_program(module: nn.Module, example: torch.Tensor) -> ExportedProgram:
    """`module` in its present mode as an exported program.

    Args:
        module: takes one tensor.
        example: [B, ...] of at least two samples: a batch of 1 would be burnt in as a constant.

    Raises:
        Exception: of many kinds, from torch.export and from the module's own code.
    """
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    with torch.no_grad(), _without_remarks():
        return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """A block whose failure is told by its error alone.

    Beside the error, torch prints the half-made graph, logs where it was, and warns of how the module is
    written; whoever asks for its log by TORCH_LOGS still has it.
    """
    kept, torch_log = io.StringIO(), logging.getLogger("torch")
    level = torch_log.level
    torch_log.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(kept), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BaseException:
        log.debug("torch.export printed:\n%s", kept.getvalue())
        raise
    else:
        sys.stderr.write(kept.getvalue())  # what the module's own code prints
    finally:
        torch_log.setLevel(level)
