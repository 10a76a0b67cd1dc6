"""`search_space` in both published notations, and backbone codes as a setting."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from darts_core.autosearch.backbones import grammar
from darts_core.autosearch.yaml_lines import Located
from darts_core.errors import ArchitectureError
from darts_core.reading import is_number
from darts_core.study.space import SearchDimension

__all__ = ["code_dimension", "dense_codes", "own_value", "parse_space"]

_TYPES = ("discrete", "discrete_param", "continuous_param", "resnet_code", "dense_code")
_FIELDS = {
    "discrete": ("type", "name", "values", "default"),
    "discrete_param": ("type", "name", "values", "default"),
    "continuous_param": (
        "type",
        "name",
        "start",
        "stop",
        "num",
        "base",
        "integer",
        "log",
        "default",
    ),
    "resnet_code": ("type", "name", "values", "count", "seed", "default"),
    "dense_code": ("type", "name", "values", "count", "seed", "default"),
}
_KINDS = ("integer", "log")  # of a range
MAX_VALUES = 10_000
_NAME = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")


def code_dimension(name: str, values: Sequence[str]) -> SearchDimension:
    """Backbone codes as a choice that knows which codes are alike (by blocks and widths of their stages)."""
    near = []
    features = [_features(code) for code in values]
    for i, one in enumerate(features):
        distances = [
            (sum(abs(x - y) for x, y in zip_longest(one, other, fillvalue=0)), j)
            for j, other in enumerate(features)
            if i != j
        ]
        near.append(tuple(j for _, j in sorted(distances)[: max(1, len(values) // 4)]))
    return SearchDimension(name, choices=tuple(values), near=tuple(near))


def _features(code: str) -> list[int]:
    """Blocks and sum of digits of each stage: what one edit changes by one or two."""
    if "x" in code:
        return _shape_features(code)
    return [
        number for stage in code.split("-") for number in (len(stage), sum(int(d) for d in stage))
    ]


def _shape_features(shape: str) -> list[int]:
    """The same of a shape such as 3x64-2x96, whose widths count as the doublings they amount to."""
    features, before = [], 64
    for part in shape.split("-"):
        count, _, width = part.partition("x")
        doublings = round(math.log2(int(width) / before))
        features += [int(count), int(count) + doublings]
        before = int(width)
    return features


def dense_codes(rng: random.Random, count: int) -> list[str]:
    """Distinct dense codes, the plain `11-11` first."""
    codes = ["11-11"]
    while len(codes) < count:
        stages = [
            "".join(rng.choice("1234") for _ in range(rng.randint(1, 4)))
            for _ in range(rng.randint(1, 3))
        ]
        code = "-".join(stages)
        if code not in codes:
            codes.append(code)
    return codes


def _resnet_codes(rng: random.Random, count: int) -> list[str]:
    """The published ResNet-50 choices, then their mutations and random codes in turn."""
    codes = list(grammar.PUBLISHED_RESNET50)[:count]
    while len(codes) < count:
        mutated = len(codes) % 2 == 0
        code = grammar.mutate(rng.choice(codes), rng) if mutated else grammar.sample(rng)
        if code not in codes:
            codes.append(code)
    return codes


def _codes(item: Located, kind: str) -> SearchDimension:
    name = item.need("name", "name the setting").text()
    values, count, seed = item.get("values"), item.get("count"), item.get("seed")
    if values is None:
        rng = random.Random(seed.integer(0) if seed else 0)
        number = count.integer(2, 500) if count else 11
        codes = _resnet_codes(rng, number) if kind == "resnet_code" else dense_codes(rng, number)
        return code_dimension(name, codes)
    codes = []
    for value in values.items():
        try:
            if kind == "resnet_code":
                codes.append(grammar.named_code(value.text()))
            else:
                from darts_core.autosearch.backbones.dense_grammar import check_dense_code

                codes.append(check_dense_code(value.text()))
        except ArchitectureError as error:
            value.fail(str(error).rstrip("."), "correct the code")
        if codes[-1] in codes[:-1]:
            value.fail("this code stands twice", "name each code once")
    return code_dimension(name, codes)


def _discrete(item: Located) -> SearchDimension:
    name = item.need("name", "name the setting").text()
    values = item.need("values", "list the allowed values")
    members = [value.plain() for value in values.items()]
    if not 1 <= len(members) <= MAX_VALUES:
        values.fail(f"{len(members)} values", f"give 1 to {MAX_VALUES}")
    for i, member in enumerate(members):
        if any(member == m and type(member) is type(m) for m in members[:i]):
            values.fail(f"{member!r} stands twice", "name each value once")
    return SearchDimension(name, choices=tuple(members))


def _continuous(item: Located, *, older: bool) -> SearchDimension:
    name = item.need("name", "name the setting").text()
    start = item.need("start", "give the first number").number()
    stop_node = item.need("stop", "give the last number")
    stop = stop_node.number()
    base, num = item.get("base"), item.get("num")
    if base is None and num is None and start > stop:
        stop_node.fail(f"below start {start:g}", "exchange them")
    if start == stop:
        stop_node.refuse(
            "start and stop are equal",
            "widen the range or use discrete_param",
            older=older and num is not None,
        )
    # an older program passed over both for points and exponents; its search goes on with its values
    passed_over = older and (num is not None or base is not None)
    integer, log = (not passed_over and _flag(item, key) for key in _KINDS)
    if passed_over and any(node is not None and node.value for node in map(item.get, _KINDS)):
        item.refuse("integer and log do not count here", "start another job for that", older=True)
    if log and base is None and min(start, stop) <= 0:
        item.fail("a logarithmic range must lie above 0", "raise start, or drop log")
    if num is not None:
        points = _points(start, stop, num.integer(2, MAX_VALUES), base, log=log)
        return _grid(item, name, points, integer=integer)
    low, high = min(start, stop), max(start, stop)
    if base is not None:
        number = _base(base, low, high)
        low, high = sorted((float(number**low), float(number**high)))
    if integer:
        if int(low) != low or int(high) != high:
            item.fail("integer is set but the bounds are fractions", "use whole bounds")
        low, high = int(low), int(high)
        return SearchDimension(name, low=low, high=high, log=log or base is not None, integer=True)
    low, high = float(low), float(high)
    return SearchDimension(name, low=low, high=high, log=log or base is not None)


def _flag(item: Located, key: str) -> bool:
    found = item.get(key)
    return found.boolean() if found is not None else False


def _base(node: Located, *exponents: float) -> float:
    """The base, with which the exponents give numbers that a float can hold."""
    number = float(node.number(0))
    if number <= 0 or number == 1:
        node.fail("not usable as a base", "use 10 or 2")
    if any(abs(exponent * math.log10(number)) > 300 for exponent in exponents):
        node.fail("start or stop is too large an exponent", "bring both nearer to 0")
    return number


def _points(start: float, stop: float, num: int, base: Located | None, *, log: bool) -> list[float]:
    """`num` points from `start` to `stop`, both included; with `base` these are exponents, with `log` the
    points are evenly spread in their logarithm.
    """
    if log and base is None:
        spread = [start * (stop / start) ** (i / (num - 1)) for i in range(num - 1)]
        return [round(p) if math.isclose(p, round(p), rel_tol=1e-9) else p for p in (*spread, stop)]
    points = [start + (stop - start) * i / (num - 1) for i in range(num)]
    points = [round(point) if abs(point - round(point)) < 1e-9 else point for point in points]
    if base is None:
        return points
    number = _base(base, start, stop)
    # 10 ** -1 in floating point is exactly 0.1, while exp/log detours are not
    return [number**point for point in points]


def _grid(item: Located, name: str, points: list[float], *, integer: bool) -> SearchDimension:
    """The points as choices; whole numbers where all are, or where `integer` asks for them."""
    if integer and any(point != round(point) for point in points):
        item.fail(
            "integer is set but some of the num points are fractions", "change num or drop it"
        )
    whole = integer or all(isinstance(point, int) for point in points)
    return SearchDimension(name, choices=tuple(int(p) if whole else float(p) for p in points))


def _one(item: Located, inherited: str | None, *, older: bool) -> tuple[SearchDimension, Any]:
    kind_node = item.get("type")
    kind = kind_node.text(_TYPES) if kind_node is not None else inherited
    if kind is None:
        item.fail("type is missing", f"use one of {', '.join(_TYPES)}")
    item.check_keys(_FIELDS[kind])
    name = item.need("name", "name the setting")
    text = name.text()
    if len(text) > 100 or not _NAME.fullmatch(text):
        name.fail("not usable as a setting's name", "use letters, digits, _ . and -")
    if kind in ("resnet_code", "dense_code"):
        dimension = _codes(item, kind)
    elif kind == "continuous_param":
        dimension = _continuous(item, older=older)
    else:
        dimension = _discrete(item)
    default = item.get("default")
    if default is None:
        return dimension, None
    own = own_value(dimension, default.plain())
    if not (dimension.choices or _finite(own)) or not dimension.contains(own):
        default.fail(
            f"not among {dimension.describe()}",
            "correct it, or name a value of your own that lies outside under general.baseline",
        )
    # an older program took it as it was written
    return dimension, default.plain() if older else own


def own_value(dimension: SearchDimension, value: Any) -> Any:
    """A value of the user's own as the setting has it: the choice that is meant, where it is one of them.

    Numbers of a grid may be written in any way, codes by their published names (`resnet50/3`).
    """
    # that of codes alone knows which of them are alike
    if dimension.near and type(value) in (int, str):
        return _code(str(value))
    if isinstance(value, str) and not dimension.contains(value):
        value = _written(value, dimension)
    if not is_number(value) or not _finite(value):
        return value
    if dimension.integer and value == int(value):
        return int(value)
    if dimension.contains(value):
        return value
    close = (c for c in dimension.choices if is_number(c) and math.isclose(value, c, rel_tol=1e-9))
    return next(close, value)


def _written(text: str, dimension: SearchDimension) -> Any:
    """The number that a text stands for, where the setting has numbers: `1e-3` is a text to YAML."""
    if dimension.choices and not any(is_number(choice) for choice in dimension.choices):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _code(text: str) -> str:
    try:
        return grammar.named_code(text)
    except ArchitectureError:
        return text  # a dense code, or one that its network refuses


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def parse_space(
    node: Located, *, older: bool = False
) -> tuple[tuple[SearchDimension, ...], dict[str, Any]]:
    """The dimensions of a `search_space` and the user's own values (`default`) among them.

    Form A gives `type: discrete` beside a list of `params`; form B gives each member of `params` its own
    type; a member may also stand directly in the list.

    Args:
        node: the field.
        older: see `parse_file`.
    """
    members: list[tuple[Located, str | None]] = []
    for entry in [node] if isinstance(node.value, dict) else node.items():
        params = entry.get("params")
        if params is None:
            members.append((entry, None))
            continue
        entry.check_keys(("type", "params"))
        kind = entry.get("type")
        inherited = kind.text(_TYPES) if kind is not None else None
        members.extend((param, inherited) for param in params.items())
    dimensions, defaults, names = [], {}, set()
    for item, inherited in members:
        dimension, default = _one(item, inherited, older=older)
        if dimension.name in names:
            item.fail(f"the setting {dimension.name!r} stands twice", "keep one of them")
        names.add(dimension.name)
        dimensions.append(dimension)
        if default is not None:
            defaults[dimension.name] = default
    if not dimensions:
        node.fail("no settings", "list at least one under params")
    return tuple(dimensions), defaults
