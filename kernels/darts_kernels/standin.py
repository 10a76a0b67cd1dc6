"""Launches without a device: Triton's own launch path under a driver that stands in for an H100's.

`recorded` runs a function whose tensors are on the meta device. Every launch goes the way it goes on the
card - the runtime binds the arguments and derives its hints from them (divisible by 16, equal to one) - up to
the point where a binary would be compiled and started. What comes back is each launch with its grid, its
numbers and the *variant* that it runs: the source with exactly those hints and options. `compile_variant`
makes the binary the card would run; Triton's cache keeps it under the key by which the card looks it up.

Under `TRITON_INTERPRET=1` the kernels are Python functions and there is nothing to compile.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

__all__ = ["Launch", "Variant", "compile_variant", "recorded"]

_DEVICE = 9090
"""A device number that no card has: what Triton keeps for it is kept apart."""


class _StandIn:
    """As much of Triton's CUDA driver as a launch asks before its binary is loaded."""

    def get_current_device(self) -> int:
        return _DEVICE

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@dataclass(frozen=True)
class Variant:
    """A kernel with everything that its binary depends on.

    Attributes:
        kernel: its name.
        name: of the variant: the kernel's, and a digest of types, hints, constants and options.
        source: a digest of the code of the kernel and of all it calls; line numbers do not count.
        constants: compile-time arguments by name, to read.
        options: of the launch: warps, stages, register cap.
    """

    kernel: str
    name: str
    source: str
    constants: dict[str, Any] = field(compare=False)
    options: dict[str, Any] = field(compare=False)
    _compiled_from: Any = field(compare=False, repr=False)


@dataclass(frozen=True)
class Launch:
    """One launch: of which variant, with which grid, and its numbers by name."""

    variant: Variant
    grid: tuple[int, int, int]
    numbers: dict[str, int]
    edges: int = 0

    @property
    def programs(self) -> int:
        """How many programs the grid has."""
        return self.grid[0] * self.grid[1] * self.grid[2]


class _Binary:
    """In place of a loaded binary: a start is noted."""

    function = packed_metadata = None

    def __init__(self, variant: Variant, arguments: list[str], launches: list[Launch]) -> None:
        self._variant, self._arguments, self._launches = variant, arguments, launches

    def launch_metadata(self, *_: Any) -> None:
        return None

    def run(self, x: int, y: int, z: int, *rest: Any) -> None:
        values = rest[len(rest) - len(self._arguments) :]
        numbers = {k: int(v) for k, v in zip(self._arguments, values, strict=True) if _whole(v)}
        self._launches.append(Launch(self._variant, (x, y, z), numbers))


def _whole(value: Any) -> bool:
    return isinstance(value, int)


@lru_cache(maxsize=1024)
def code_digest(function: Any) -> str:
    """A digest of a kernel's code and of the kernels and constants it uses, whatever lines they stand on."""
    from triton.runtime.jit import JITFunction

    parts, seen, left = [], {id(function)}, [function]
    while left:
        one = left.pop()
        tree = ast.parse(one.src)
        parts.append(_dumped(tree))
        # of a module's attributes (tl.load) only the last name is ours to look at
        names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
        for name in names:
            value = one.fn.__globals__.get(name)
            if isinstance(value, JITFunction):
                if id(value) not in seen and value.fn.__module__.startswith("darts_kernels"):
                    seen.add(id(value))
                    left.append(value)
            elif type(value).__name__ == "constexpr":
                parts.append(f"{name}={value.value}")
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12]


def _dumped(tree: ast.AST) -> str:
    """The tree in the words of Python 3.11: 3.12 has a field more, 3.13 leaves empty ones out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and getattr(node, "type_params", None) == []:
            delattr(node, "type_params")
    whole: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, annotate_fields=False, **whole)


_KEPT_OPTIONS = ("num_warps", "num_stages", "maxnreg", "launch_pdl")


@contextmanager
def _standing_in(launches: list[Launch]) -> Iterator[None]:
    from triton.compiler import ASTSource
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    variants: dict[Any, Variant] = {}

    def found(
        self: Any, key: Any, signature: Any, device: Any, constexprs: Any, options: Any, attrs: Any,
        warmup: bool,
    ) -> _Binary:  # fmt: skip
        variant = variants.get((self, key))
        if variant is None:
            source = ASTSource(self, signature, constexprs, attrs)
            shown = {k: getattr(options, k, None) for k in _KEPT_OPTIONS}
            constants = {
                ".".join(self.arg_names[p] if not i else str(p) for i, p in enumerate(path)): value
                for path, value in source.constants.items()
            }
            said = repr((signature, sorted(constants.items()), sorted(attrs.items()), shown))
            digest = hashlib.sha256(said.encode()).hexdigest()[:10]
            variant = Variant(
                self.__name__, f"{self.__name__.strip('_')}-{digest}", code_digest(self), constants,
                {k: v for k, v in shown.items() if v}, (source, options),
            )  # fmt: skip
            variants[(self, key)] = variant
        return _Binary(variant, self.arg_names, launches)

    real, active = JITFunction._do_compile, driver._active
    JITFunction._do_compile = found
    driver.set_active(_StandIn())
    try:
        yield
    finally:
        JITFunction._do_compile = real
        driver._active = active


def recorded(call: Callable[[], Any]) -> list[Launch]:
    """The launches of `call`, whose tensors are on the meta device; nothing is compiled or run."""
    launches: list[Launch] = []
    with _standing_in(launches):
        call()
    return launches


def compile_variant(variant: Variant) -> Any:
    """Triton's compiled kernel, for sm_90; through Triton's cache."""
    import triton

    source, options = variant._compiled_from
    target = _StandIn().get_current_target()
    return triton.compile(source, target=target, options=options.__dict__)
