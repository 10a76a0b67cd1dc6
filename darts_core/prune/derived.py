"""Kinds of layers that channels meet, and those whose weight is computed from other tensors."""

from __future__ import annotations

from torch import nn

from darts_core.prune.blocks import CONVOLUTIONS

__all__ = [
    "INSTANCE_NORMS",
    "LAYER_NORMS",
    "NORMS",
    "ROOTS",
    "TAKE_OFF",
    "derived_layers",
    "derives_weight",
]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
ROOTS = (*CONVOLUTIONS, nn.Linear)
# layers that torch makes with a weight (or None for it) among their parameters
_WEIGHTED = (
    *ROOTS, *NORMS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, *LAYER_NORMS, nn.GroupNorm,
    nn.PReLU, nn.Embedding,
)  # fmt: skip
TAKE_OFF = "torch.nn.utils.remove_weight_norm or torch.nn.utils.parametrize.remove_parametrizations"


def derives_weight(module: nn.Module) -> bool:
    """Whether the weight of the layer, or of one in it, is computed from other tensors.

    torch's weight_norm and spectral_norm, and its pruning by masks, leave a layer so.
    """
    return any(
        isinstance(part, _WEIGHTED) and "weight" not in (*part._parameters, *part._buffers)
        for part in module.modules()
    )


def derived_layers(model: nn.Module) -> dict[str, str]:
    """Convolution or linear layer whose weight is derived -> why its channels stay, in words."""
    return {
        name: "its weight is derived, as by weight_norm"
        for name, module in model.named_modules()
        if isinstance(module, ROOTS) and derives_weight(module)
    }
