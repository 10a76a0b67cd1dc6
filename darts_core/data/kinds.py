"""What inputs may be: images, series, tokens. The number of dimensions says which.

Shapes: N samples, C channels, H W height and width, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kind", "kind_of", "sample_words"]


@dataclass(frozen=True)
class Kind:
    """One kind of inputs: its name, the shape of a set, what its samples are called, how it is fed."""

    name: str
    shape: str
    samples: str
    fed: str


_LIST = (
    Kind("tokens", "[N, T]", "token rows", "int64 [batch, positions], token numbers"),
    Kind("series", "[N, C, T]", "series", "float32 [batch, channels, positions], (value - mean) / std"),
    Kind(
        "image", "[N, C, H, W]", "images",
        "float32 [batch, channels, height, width], (value - mean) / std",
    ),
)  # fmt: skip
# dimensions of a whole set -> its kind
KINDS = {2: _LIST[0], 3: _LIST[1], 4: _LIST[2]}


def kind_of(dimensions: int) -> Kind:
    """The kind of samples with so many dimensions (tokens 1, series 2, images 3)."""
    return KINDS[dimensions + 1]


def sample_words(dimensions: int) -> str:
    """What samples with so many dimensions are called."""
    return kind_of(dimensions).samples
