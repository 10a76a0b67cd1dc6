"""A pytest plugin: interpreted launches are looked at for races and for accesses outside their buffers.

    TRITON_INTERPRET=1 pytest -p tests.kernels.racecheck -m interpret tests/kernels

The interpreter runs the programs of a launch one after the other, so it hides what goes wrong when they run
at once. Here the first launch of every kernel at every set of constants and grid is run three times (programs
in their usual, in reversed and in shuffled order, from the same memory) and every access is noted. A test
fails with `RaceError` where

* the results of two orders differ in a bit;
* two programs write one address, or one store writes an address twice;
* a program reads what another program of the launch writes, unless both order themselves by an atomic;
* a program loads what it stored itself, but for an atomic in between: its threads do not wait;
* an access does not lie within one of the tensors that the launch was given.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from triton.runtime.errors import InterpreterError

MOST_PROGRAMS = 600
"""Launches of more programs run once, without a look."""


class RaceError(AssertionError):
    """A launch whose programs may not run at once, or that leaves its buffers."""


@dataclass
class Program:
    """The accesses of one program, as arrays of addresses in order of time."""

    reads: list[np.ndarray] = field(default_factory=list)
    ordered_reads: list[np.ndarray] = field(default_factory=list)
    writes: list[np.ndarray] = field(default_factory=list)
    atomic: bool = False


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(arrays)) if arrays else np.empty(0, np.int64)


class Watch:
    """Notes what the programs of one launch access; raises at once where an access is wrong by itself."""

    def __init__(self, name: str, tensors: list) -> None:
        self.name = name
        self.spans = [span for tensor in tensors for span in _span(tensor)]
        self.programs: list[Program] = []

    def begin(self) -> None:
        self.programs.append(Program())

    def _active(self, pointers, mask) -> np.ndarray:
        places = np.asarray(pointers.data)
        chosen = np.broadcast_to(np.asarray(mask.data).astype(bool), places.shape)
        places = places[chosen].astype(np.int64)
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        if places.size:
            low, high = int(places.min()), int(places.max()) + size
            if not any(start <= low and high <= end for start, end in self.spans):
                raise RaceError(f"{self.name}: an access leaves the tensors of the launch")
        return places

    def load(self, pointers, mask) -> None:
        places, program = self._active(pointers, mask), self.programs[-1]
        own = program.writes
        if own and not program.atomic and np.intersect1d(places, np.concatenate(own)).size:
            raise RaceError(f"{self.name}: a program loads what it stored itself")
        (program.ordered_reads if program.atomic else program.reads).append(places)

    def store(self, pointers, mask) -> None:
        places = self._active(pointers, mask)
        if np.unique(places).size != places.size:
            raise RaceError(f"{self.name}: one store writes an address twice")
        self.programs[-1].writes.append(places)

    def atomic(self, pointers, mask) -> None:
        self._active(pointers, mask)
        self.programs[-1].atomic = True

    def compare(self) -> None:
        """Look at all programs together."""
        writes = [_joined(program.writes) for program in self.programs]
        every = np.concatenate(writes) if writes else np.empty(0, np.int64)
        owner = np.repeat(np.arange(len(writes)), [w.size for w in writes])
        order = np.argsort(every, kind="stable")
        every, owner = every[order], owner[order]
        if (every[1:] == every[:-1]).any():
            raise RaceError(f"{self.name}: two programs write one address")
        for number, program in enumerate(self.programs):
            reads = _joined(program.reads)
            where = np.searchsorted(every, reads)
            found = where < every.size
            reads, where = reads[found], where[found]
            foreign = (every[where] == reads) & (owner[where] != number)
            if foreign.any():
                raise RaceError(f"{self.name}: a program reads what another one writes")


def _span(tensor) -> Iterator[tuple[int, int]]:
    """(first byte, end) of a tensor, or of each of a tuple of them."""
    if isinstance(tensor, tuple):
        for item in tensor:
            yield from _span(item)
    elif hasattr(tensor, "data_ptr") and tensor.numel():
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        start = tensor.data_ptr()
        yield start, start + (reach + 1) * tensor.element_size()


def _storages(arguments) -> dict[int, np.ndarray]:
    """The bytes of every storage among the arguments, by address."""
    found = {}
    for argument in arguments:
        if isinstance(argument, tuple):
            found.update(_storages(argument))
        elif hasattr(argument, "data_ptr"):
            storage = argument.untyped_storage()
            if storage.nbytes():
                raw = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
                found[storage.data_ptr()] = np.frombuffer(raw, dtype=np.uint8)
    return found


@dataclass
class State:
    """The launch that is looked at, if one is, and what was looked at so far."""

    watch: Watch | None = None
    order: dict[tuple[int, int, int], tuple[int, int, int]] | None = None
    seen: set = field(default_factory=set)
    counts: Counter = field(default_factory=Counter)
    looking: bool = False


STATE = State()


def checked_launch(executor, real, arguments, keywords):
    """Run a launch three times and compare; `real` runs it once."""
    name = executor.fn.__name__
    grid = executor.grid
    constants = sorted((k, str(v)) for k, v in keywords.items() if k in executor.constexprs)
    key = (name, str(grid), str(constants))
    if STATE.watch is not None or callable(grid) or key in STATE.seen:
        return real(executor, *arguments, **keywords)
    STATE.seen.add(key)
    grid = (*grid, 1, 1)[:3]
    programs = [(x, y, z) for x in range(grid[0]) for y in range(grid[1]) for z in range(grid[2])]
    if len(programs) > MOST_PROGRAMS:
        return real(executor, *arguments, **keywords)
    given = [*arguments, *keywords.values()]
    memory = _storages(given)
    before = {place: array.copy() for place, array in memory.items()}
    watch = Watch(name, given)
    orders = {"usual": programs, "reversed": programs[::-1], "shuffled": list(programs)}
    random.Random(len(programs)).shuffle(orders["shuffled"])
    first: dict[int, np.ndarray] = {}
    for word, order in orders.items():
        if word != "usual" and len(programs) == 1:
            break
        for place, array in memory.items():
            array[:] = before[place]
        STATE.watch = watch if word == "usual" else None
        STATE.order = dict(zip(programs, order, strict=True))
        try:
            real(executor, *arguments, **keywords)
        except InterpreterError as error:
            if isinstance(error.__cause__, RaceError):
                raise error.__cause__ from None
            raise
        finally:
            STATE.watch = STATE.order = None
        if word == "usual":
            watch.compare()
            first = {place: array.copy() for place, array in memory.items()}
        elif any(not np.array_equal(array, first[place]) for place, array in memory.items()):
            raise RaceError(f"{name}: the {word} order of programs gives another result")
    STATE.counts[name] += 1
    return None


@contextlib.contextmanager
def looking() -> Iterator[State]:
    """A context in which interpreted launches are looked at."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    STATE.seen.clear()
    if STATE.looking:
        yield STATE
        return
    STATE.looking = True
    real = {
        name: getattr(builder, name)
        for name in (
            "set_grid_idx", "create_masked_load", "create_masked_store", "create_atomic_rmw",
            "create_atomic_cas",
        )
    }  # fmt: skip
    launch = interpreter.GridExecutor.__call__

    def set_grid_idx(x, y, z):
        if STATE.watch is not None:
            STATE.watch.begin()
        real["set_grid_idx"](*((STATE.order or {}).get((x, y, z), (x, y, z))))

    def masked_load(pointers, mask, *rest):
        if STATE.watch is not None:
            STATE.watch.load(pointers, mask)
        return real["create_masked_load"](pointers, mask, *rest)

    def masked_store(pointers, value, mask, *rest):
        if STATE.watch is not None:
            STATE.watch.store(pointers, mask)
        return real["create_masked_store"](pointers, value, mask, *rest)

    def atomic_rmw(operation, pointers, value, mask, *rest):
        if STATE.watch is not None:
            STATE.watch.atomic(pointers, mask)
        return real["create_atomic_rmw"](operation, pointers, value, mask, *rest)

    builder.set_grid_idx, builder.create_masked_load = set_grid_idx, masked_load
    builder.create_masked_store, builder.create_atomic_rmw = masked_store, atomic_rmw
    interpreter.GridExecutor.__call__ = lambda self, *a, **k: checked_launch(self, launch, a, k)
    try:
        yield STATE
    finally:
        STATE.looking = False
        interpreter.GridExecutor.__call__ = launch
        for name, function in real.items():
            setattr(builder, name, function)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtestloop(session: pytest.Session):
    """Look at every launch of the session (as a plugin, `-p tests.kernels.racecheck`)."""
    with looking():
        yield


def pytest_terminal_summary(terminalreporter) -> None:
    """How much was looked at."""
    if STATE.counts:
        words = f"{sum(STATE.counts.values())} launches of {len(STATE.counts)} kernels"
        terminalreporter.write_line(f"races and bounds: {words} looked at")
