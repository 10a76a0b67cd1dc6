"""Attentions of other people's networks, opened: the same computation, in layers whose heads can be fewer.

`nn.MultiheadAttention` and most attentions that are written by hand take the size of a head from the
network's width, so that no head can go. These modules take it from the layers.

Shapes: B batch, T queries, S keys, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HEAD_COUNTS", "HEAD_SIZES", "OpenAttention", "OpenMultihead", "opened"]

# under which names foreign attentions keep their number of heads, and the channels of one
HEAD_COUNTS = ("num_heads", "heads", "n_heads", "n_head", "nhead")
HEAD_SIZES = ("head_dim", "head_channels", "head_size", "dim_head")


class OpenAttention(nn.Module):
    """Self-attention with one layer for queries, keys and values: [B, T, C] -> [B, T, C].

    Args:
        qkv: linear, C -> 3 H D: all queries, all keys, all values.
        proj: linear, H D -> C.
        head_channels: D.
        dropout: of the attention, in training.
    """

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, head_channels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.qkv, self.proj = qkv, proj
        self.head_channels, self.dropout = head_channels, dropout

    def split(self, x_BTF: Tensor) -> Tensor:
        """[B, T, H D] -> [B, H, T, D]."""
        return x_BTF.unflatten(-1, (-1, self.head_channels)).transpose(1, 2)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """The attended tokens."""
        q, k, v = (self.split(part) for part in self.qkv(x_BTC).chunk(3, -1))
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        result: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return result


class OpenMultihead(OpenAttention):
    """`nn.MultiheadAttention` over again, called as that is; keys and queries have one width C.

    Its parameters are the original's own: an optimizer goes on with them.
    """

    # what torch's encoder layers ask before they take a path that reads the parameters of the original
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, old: nn.MultiheadAttention) -> None:
        qkv = _linear(old.in_proj_weight, old.in_proj_bias)
        proj = _linear(old.out_proj.weight, old.out_proj.bias)
        super().__init__(qkv, proj, old.embed_dim // old.num_heads, old.dropout)
        self.batch_first = old.batch_first

    @property
    def num_heads(self) -> int:
        """H."""
        return self.proj.in_features // self.head_channels

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(the attended queries, the attention's weights or None), as the original gives them."""
        if query.dim() == 2:
            raise RuntimeError("an opened attention takes batches, not a single sequence")
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self.split(x) for x in self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights_BHTS = None
        if need_weights:
            # scaled before, as the original does: the products may pass what half precision holds
            scores = (q * self.head_channels**-0.5) @ k.transpose(-2, -1)
            weights_BHTS = (scores if mask is None else scores + mask).softmax(-1)
            weights_BHTS = F.dropout(weights_BHTS, dropout)
            found = weights_BHTS @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.proj(found.transpose(1, 2).flatten(2))
        if weights_BHTS is not None and average_attn_weights:
            weights_BHTS = weights_BHTS.mean(1)
        return (out if self.batch_first else out.transpose(0, 1)), weights_BHTS

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if query is key and key is value:
            return self.qkv(query).chunk(3, -1)  # type: ignore[no-any-return]
        weights = self.qkv.weight.chunk(3)
        biases = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
        return tuple(
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )

    def _mask(self, mask: Tensor | None, padding_BS: Tensor | None, like: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores; True of a truth value means: not seen."""
        total: Tensor | None = None
        for part in (mask, None if padding_BS is None else padding_BS[:, None, None, :]):
            if part is None:
                continue
            if part.dim() == 3:  # one mask a head
                part = part.unflatten(0, (-1, self.num_heads))
            if part.dtype == torch.bool:
                part = torch.zeros_like(part, dtype=like.dtype).masked_fill(part, float("-inf"))
            total = part if total is None else total + part
        return total


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these parameters; what is derived from others, as by a parametrization, is copied."""
    # made without values, which would move torch's random numbers
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            own = isinstance(value, nn.Parameter)
            setattr(layer, name, value if own else nn.Parameter(value.detach().clone()))
    return layer


def opened(module: nn.Module) -> OpenAttention | None:
    """`module` opened, with its parameters; None where it is not known to be such an attention.

    A hand-written one is recognised by its layers and its number of heads alone: whether it computes the
    same is for the caller to try.
    """
    if isinstance(module, nn.MultiheadAttention):
        extra = module.bias_k is not None or module.bias_v is not None or module.add_zero_attn
        # widths of keys and values of their own lie in other parameters
        return None if extra or module.in_proj_weight is None else OpenMultihead(module)
    layers = [child for child in module.children() if isinstance(child, nn.Linear)]
    heads = next((n for n in map(vars(module).get, HEAD_COUNTS) if isinstance(n, int) and n), None)
    if len(layers) != 2 or not heads:
        return None
    qkv, proj = layers
    if qkv.out_features != 3 * proj.in_features or proj.in_features % heads:
        return None
    return OpenAttention(qkv, proj, proj.in_features // heads)
