"""Colours with a meaning: operation families, pipeline steps, states. One table for pages and pictures.

On a page a colour is a CSS variable (`var(--sep)`), so that light and dark each have their own value;
for matplotlib the light value is used. Hues were chosen to differ in lightness too, and nothing is told
by colour alone: every edge carries its operation's name, every series a label and its own marker.
"""

from __future__ import annotations

__all__ = ["COLORS", "KINDS", "hex_color", "kind_color", "op_colors", "op_family", "series_colors"]

# name -> (light page, dark page)
COLORS: dict[str, tuple[str, str]] = {
    "paper": ("#f7f6f3", "#12151a"),
    "surface": ("#ffffff", "#1a1e25"),
    "sunken": ("#f1efeb", "#222731"),
    "ink": ("#1c2026", "#e8eaee"),
    "soft": ("#5a6270", "#a3acba"),
    "faint": ("#666d7a", "#828c9b"),
    "line": ("#e2dfd9", "#2f3540"),
    "accent": ("#1f5fc9", "#7fb0ff"),
    "good": ("#1a7f4b", "#5ccf93"),
    "warn": ("#9a5b00", "#f0b45a"),
    "bad": ("#b3261e", "#ff8a80"),
    "sep": ("#2568c8", "#6fa8ff"),
    "dil": ("#b5327a", "#f285bb"),
    "conv": ("#0b7f86", "#4ccbd0"),
    "pool": ("#b06a00", "#f0ad4e"),
    "skip": ("#4f7a28", "#9ccc65"),
    "none": ("#7a828e", "#8f98a5"),
    "other": ("#6a4fc4", "#b3a1ff"),
    "baseline": ("#50565f", "#c3c9d2"),
    "searched": ("#2568c8", "#6fa8ff"),
    "tuned": ("#0b7f86", "#4ccbd0"),
    "trained": ("#0b7f86", "#4ccbd0"),
    "pruned": ("#b06a00", "#f0ad4e"),
    "exported": ("#b5327a", "#f285bb"),
    "int8": ("#6a4fc4", "#b3a1ff"),
    "third": ("#4f7a28", "#9ccc65"),  # of pictures of `benchmarks.front_picture`
}

KINDS = ("baseline", "searched", "tuned", "trained", "pruned", "exported", "int8")
_SERIES = ("sep", "pool", "conv", "dil", "skip", "other", "none")

# a fragment of an operation's name -> its family; the first that occurs decides
_FRAGMENTS = (
    ("none", "none"),
    ("zero", "none"),
    ("skip", "skip"),
    ("identity", "skip"),
    ("pool", "pool"),
    ("dil", "dil"),
    ("sep", "sep"),
    ("dw", "sep"),
    ("depthwise", "sep"),
    ("mbconv", "sep"),
    ("conv", "conv"),
)


def op_family(op: str) -> str:
    """The family of an operation by its name: sep, dil, conv, pool, skip, none or other."""
    name = op.lower()
    return next((family for fragment, family in _FRAGMENTS if fragment in name), "other")


def op_colors(ops: list[str]) -> dict[str, tuple[str, int]]:
    """Operation -> (colour name, how many before it in `ops` share that colour).

    The second number picks a dash pattern or a lighter shade, so that two of one family differ.
    """
    seen: dict[str, int] = {}
    result = {}
    for op in ops:
        family = op_family(op)
        result[op] = (family, seen.get(family, 0))
        seen[family] = seen.get(family, 0) + 1
    return result


def kind_color(kind: str) -> str:
    """The colour name of a pipeline step; a step of another name gets a neutral one."""
    return kind if kind in KINDS else "other"


def series_colors(count: int) -> list[str]:
    """`count` colour names in a fixed order (repeating when there are more series than colours)."""
    return [_SERIES[i % len(_SERIES)] for i in range(count)]


def hex_color(name: str) -> str:
    """The hex value of a colour name on paper, for pictures outside a page."""
    return COLORS[name][0]
