"""Small SVG pieces: escaped elements, axes with round ticks, widths of text.

Every value that reaches an attribute or a text passes through `html_text`; colours are names of the
palette and become CSS variables, so that a drawing follows the page's light or dark form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from darts_core.report.escape import html_text

__all__ = [
    "Scale",
    "drawing",
    "line",
    "number",
    "path",
    "rect",
    "tag",
    "text",
    "text_width",
    "tick_texts",
    "ticks",
]


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, without trailing zeros or an exponent where short."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def text_width(content: str, size: float = 12.0) -> float:
    """About how wide `content` is in pixels in a sans-serif font at `size` pixels, on the safe side."""
    wide = sum(
        0.95 if c in "mwMW@%—" else 0.4 if c in "iljt.,:;'|!()[] " else 0.66 for c in content
    )
    return size * wide


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element; `content` is markup already, attribute values are escaped here.

    A trailing underscore of an attribute name is dropped (`class_`) and others become hyphens.
    None leaves an attribute out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{html_text(value, limit=20000)}"')
    return f"<{' '.join(parts)}>{content}</{name}>" if content else f"<{' '.join(parts)}/>"


def text(x: float, y: float, content: object, *, tip: object = None, **attributes: object) -> str:
    """A text element; `content` and the hover text `tip` are escaped."""
    title = f"<title>{html_text(tip)}</title>" if tip is not None else ""
    return tag("text", title + html_text(content), x=float(x), y=float(y), **attributes)


def rect(
    x: float, y: float, width: float, height: float, *, tip: object = None, **attributes: object
) -> str:
    """A rectangle with an optional hover text."""
    title = f"<title>{html_text(tip)}</title>" if tip is not None else ""
    return tag(
        "rect",
        title,
        x=float(x),
        y=float(y),
        width=float(width),
        height=float(height),
        **attributes,
    )


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    """A straight line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), **attributes)


def path(points: Sequence[tuple[float, float]], **attributes: object) -> str:
    """A polyline through `points`."""
    steps = " ".join(f"{'L' if i else 'M'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(points))
    return tag("path", d=steps, fill="none", **attributes)


def drawing(
    width: float,
    height: float,
    content: str,
    *,
    label: str,
    class_: str = "chart",
    most: float | None = None,
) -> Markup:
    """A whole `svg` element that scales with the page, up to `most` pixels wide (its own width).

    `label` is read out by screen readers.
    """
    element = tag(
        "svg",
        f"<title>{html_text(label)}</title>{content}",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        class_=class_,
        width=f"{most or width:.0f}",
    )
    return Markup(element)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_texts(marks: Sequence[float]) -> list[str]:
    """Texts of an axis' marks with as many decimals as tell neighbours apart."""
    if len(marks) < 2:
        return [number(mark) for mark in marks]
    step = min(abs(b - a) for a, b in pairwise(marks))
    top = max(abs(mark) for mark in marks)
    if top >= 1e6 or step < 1e-7:
        return [number(mark, 4) for mark in marks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    # 2.5 and its like need one decimal more than their power of ten says
    if any(abs(round(mark, decimals) - mark) > 1e-3 * step for mark in marks):
        decimals += 1
    return [f"{mark + 0.0:.{decimals}f}" for mark in marks]


@dataclass(frozen=True)
class Scale:
    """A map from values in [low, high] to pixels in [start, stop], linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    @classmethod
    def fit(
        cls,
        values: Sequence[float],
        start: float,
        stop: float,
        *,
        log: bool = False,
        pad: float = 0.06,
    ) -> Scale:
        """A scale around `values` with a share `pad` of room on both sides; equal values get a span."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        log = log and low > 0
        if log:
            low, high = math.log(low), math.log(high)
        span = high - low or abs(high) * 0.2 or 1.0
        low, high = low - pad * span, high + pad * span
        if log:
            low, high = math.exp(low), math.exp(high)
        return cls(low, high, start, stop, log)

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values to mark on the axis."""
        if not self.log:
            return ticks(self.low, self.high, count)
        marks: list[float] = []
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            powers = range(
                math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 1
            )
            marks = [m * 10.0**p for p in powers for m in steps]
            marks = [mark for mark in marks if self.low <= mark <= self.high]
            if len(marks) >= min(count, 3):
                break
        return marks if len(marks) >= 2 else ticks(self.low, self.high, count)
