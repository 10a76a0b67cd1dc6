"""Self-attention with heads that can be left out: what a `HeadChoice` searches and leaves behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Multi-head self-attention; its heads need not fill the channels.

    Shapes: [B, T, C] -> [B, T, C].

    Args:
        channels: C.
        heads: number of heads.
        head_channels: channels of a head; C / heads by default.
        causal: a token sees itself and those before it only.

    Source: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self, channels: int, heads: int, *, head_channels: int | None = None, causal: bool = False
    ) -> None:
        super().__init__()
        self.head_channels = head_channels or channels // heads
        self.causal = causal
        inner = heads * self.head_channels
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.output = nn.Linear(inner, channels)

    def attend(self, x_BTC: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the heads give, side by side: [B, T, heads * head_channels]."""
        if self.causal and mask is not None:
            mask = _also_causal(mask, x_BTC.shape[1])
        query, key, value = (
            layer(x_BTC).unflatten(-1, (-1, self.head_channels)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        found = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=self.causal and mask is None
        )
        return found.transpose(1, 2).flatten(2)

    def forward(self, x_BTC: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attended tokens; `mask` is one of `scaled_dot_product_attention`, beside the causal one."""
        result: Tensor = self.output(self.attend(x_BTC, mask))
        return result

    @torch.no_grad()
    def first_heads(self, heads: int) -> SelfAttention:
        """A copy with the first `heads` heads."""
        kept = heads * self.head_channels
        copied = SelfAttention(
            self.query.in_features, heads, head_channels=self.head_channels, causal=self.causal
        ).to(self.query.weight.device, self.query.weight.dtype)
        for name in ("query", "key", "value"):
            old, new = getattr(self, name), getattr(copied, name)
            new.weight.copy_(old.weight[:kept])
            new.bias.copy_(old.bias[:kept])
        copied.output.weight.copy_(self.output.weight[:, :kept])
        copied.output.bias.copy_(self.output.bias)
        for old, new in zip(self.parameters(), copied.parameters(), strict=True):
            new.requires_grad_(old.requires_grad)
        return copied.train(self.training)


def _also_causal(mask: Tensor, tokens: int) -> Tensor:
    """`mask` [..., T, T] or what broadcasts to it, without what lies ahead of a token."""
    seen_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    if mask.dtype == torch.bool:
        return mask & seen_TT
    return mask.masked_fill(~seen_TT, float("-inf"))
