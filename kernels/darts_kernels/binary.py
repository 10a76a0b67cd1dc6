"""What a compiled kernel is like: read from its assembly, without a device.

Counts are those of the program text, so a loop's body counts once; `looped` says how much of it lies in
loops. Source for the limits: the CUDA programming guide's table of compute capability 9.0.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["LARGEST_SHARED", "Binary", "occupancy", "read_binary", "waits_first"]

LARGEST_SHARED = 227 * 1024
"""Shared memory of one block, in bytes."""
_REGISTERS, _WARPS, _BLOCKS, _SHARED, _RESERVED = 65536, 64, 32, 228 * 1024, 1024


@dataclass(frozen=True)
class Binary:
    """Facts of a binary.

    Attributes:
        registers: of a thread.
        spills: instructions that go to local memory.
        shared: bytes of shared memory of a block.
        narrowest: bits of a thread's narrowest global access among those of tiles that give a thread 128 bits
            or more; 0 where there are none. Scalars, vectors of channels, weights and partial sums do not
            count: they are small, stay in the caches, and matrix products want some of them turned over.
        tensor: tensor-core instructions.
        loses_nan: float maxima and minima that drop a NaN.
        occupancy: share of a multiprocessor's warps that can be resident.
        instructions: all of them.
        looped: those inside loops.
    """

    registers: int
    spills: int
    shared: int
    narrowest: int
    tensor: int
    loses_nan: int
    occupancy: float
    instructions: int
    looped: int

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def read_binary(compiled: Any) -> Binary:
    """The facts of one of Triton's compiled kernels."""
    assembly = _disassembled(compiled.asm["cubin"])
    registers, warps = _registers(compiled.asm["cubin"]), compiled.metadata.num_warps
    words = [word for _, word, _ in assembly]
    return Binary(
        registers=registers,
        spills=sum(word.startswith(("STL", "LDL")) for word in words),
        shared=compiled.metadata.shared,
        narrowest=_narrowest(compiled.asm["ttgir"], compiled.asm["ptx"], 32 * warps),
        tensor=sum(word.startswith(("HMMA", "HGMMA")) for word in words),
        loses_nan=sum(word.startswith("FMNMX") and ".NAN" not in word for word in words),
        occupancy=occupancy(registers, compiled.metadata.shared, warps),
        instructions=len(words),
        looped=_looped(assembly),
    )


_MEMORY = ("LD", "ST", "ATOM", "RED", "UBLKCP", "UTMA")
_NO_MEMORY = ("LDC", "LDGDEPBAR", "REDUX")
"""Constants (the launch's arguments), and words that only look like an access."""


def waits_first(compiled: Any) -> bool:
    """Whether a kernel waits for the one before ahead of its first access and of its first branch."""
    for _, word, _ in _disassembled(compiled.asm["cubin"]):
        if word.startswith("ACQBULK"):
            return True
        if word.startswith(("BRA", "EXIT", *_MEMORY)) and not word.startswith(_NO_MEMORY):
            return False
    return False


def occupancy(registers: int, shared: int, warps: int) -> float:
    """Share of a multiprocessor's 64 warps that fit at once."""
    per_warp = -(-registers * 32 // 256) * 256
    blocks = min(
        _REGISTERS // per_warp // warps, _SHARED // (shared + _RESERVED), _WARPS // warps, _BLOCKS
    )
    return round(blocks * warps / _WARPS, 3)


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _with_file(cubin: bytes, *command: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([*command, file.name], capture_output=True, check=True)
        return run.stdout.decode()


def _registers(cubin: bytes) -> int:
    found = re.search(r"REG:(\d+)", _with_file(cubin, _tool("cuobjdump"), "-res-usage"))
    if found is None:
        raise RuntimeError("cuobjdump reports no registers; the CUDA tools of Triton have changed.")
    return int(found.group(1))


_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")


def _disassembled(cubin: bytes) -> list[tuple[int, str, str]]:
    """(address, instruction, operands) of every instruction but the padding behind the end."""
    text = _with_file(cubin, _tool("cuobjdump"), "-sass")
    found = [(int(a, 16), word, rest) for a, word, rest in _LINE.findall(text)]
    while found and found[-1][1].startswith(("NOP", "BRA")):
        found.pop()
    return found


def _looped(assembly: list[tuple[int, str, str]]) -> int:
    """Instructions between a backward branch and its target."""
    spans = []
    for address, word, rest in assembly:
        target = re.search(r"0x([0-9a-f]+)", rest) if word.startswith("BRA") else None
        if target and int(target.group(1), 16) < address:
            spans.append((int(target.group(1), 16), address))
    return sum(any(low <= a <= high for low, high in spans) for a, _, _ in assembly)


_LOC = re.compile(r"^(#loc\d*) = loc\((.*)\)$", re.M)
_PLACE = re.compile(r'"([^"]*)":(\d+):(\d+)')
_BITS = {
    "f32": 32,
    "i32": 32,
    "f16": 16,
    "bf16": 16,
    "i64": 64,
    "i8": 8,
    "f64": 64,
    "i1": 8,
    "i16": 16,
}


_DEFINED = re.compile(r"^\s*(%[\w.#]+)(?::\d+)? = [\w.]+ (%[\w.#]+)", re.M)


_BLOCK = re.compile(r"^\s*(?:(%\w+)(?::\d+)? = )?scf\.(?:if|for|while)\b", re.M)
_SMALL = ("weight", "sum")
"""In the names of arguments: what is small and stays in the caches."""


def _origins(ttgir: str) -> dict[str, str]:
    """Value -> the value that it is computed from: the first operand, or what a branch yields."""
    found = dict(_DEFINED.findall(ttgir))
    open_blocks: list[str] = []
    for line in ttgir.splitlines():
        block = _BLOCK.match(line)
        if block:
            open_blocks.append(block.group(1) or "")
        yielded = re.match(r"\s*scf\.yield (.*?) :", line)
        if yielded and open_blocks:
            for number, value in enumerate(yielded.group(1).split(", ")):
                found.setdefault(f"{open_blocks[-1]}#{number}", value)
        if open_blocks and re.match(r"\s*\}(?! else)", line):
            open_blocks.pop()
    return found


def _argument_of(value: str, defined: dict[str, str]) -> str:
    """The argument of the kernel that a pointer comes from, by way of first operands."""
    for _ in range(64):
        if value not in defined:
            break
        value = defined[value]
    return value


def _wide_places(ttgir: str, threads: int) -> set[tuple[int, int]]:
    """(line, column) of the loads and stores of tiles that give every thread 128 bits or more."""
    locs = dict(_LOC.findall(ttgir))

    def place(name: str) -> tuple[int, int] | None:
        # callsite(inner at outer) and "name"(inner): the inner one is where the access stands
        text = locs.get(name, "")
        found = _PLACE.match(text)
        if found:
            return int(found.group(2)), int(found.group(3))
        inner = re.search(r"#loc\d*", text)
        return place(inner.group()) if inner else None

    places, defined = set(), _origins(ttgir)
    for line in ttgir.splitlines():
        if not re.search(r"tt\.load|tt\.store|ttg\.async_copy_global_to_local", line):
            continue
        shape = re.search(r"tensor<((?:\d+x)+)!tt\.ptr<(\w+)>", line)
        loc = re.search(r"loc\((#loc\d*)\)\s*$", line)
        pointer = re.search(r"(?:tt\.load|tt\.store|async_copy_global_to_local) (%[\w.#]+)", line)
        if shape is None or loc is None or pointer is None:
            continue
        if any(word in _argument_of(pointer.group(1), defined) for word in _SMALL):
            continue
        bits = _BITS[shape.group(2)]
        for length in shape.group(1).split("x")[:-1]:
            bits *= int(length)
        where = place(loc.group(1))
        if bits // threads >= 128 and where is not None:
            places.add(where)
    return places


_ACCESS = re.compile(r"(?:ld|st)\.global(?:\.[\w:]+)*?(?:\.v(\d))?\.[busf](\d+)\b")
_COPY = re.compile(
    r"cp\.async\.\w+\.shared\.global(?:\.[\w:]+)*\s*\[[^\]]*\]\s*,\s*\[[^\]]*\]\s*,\s*(0x[0-9a-f]+|\d+)"
)


def _narrowest(ttgir: str, ptx: str, threads: int) -> int:
    wide, here, widths = _wide_places(ttgir, threads), (0, 0), []
    for line in ptx.splitlines():
        loc = re.match(r"\s*\.loc\s+\d+\s+(\d+)\s+(\d+)", line)
        if loc:
            here = int(loc.group(1)), int(loc.group(2))
        access, copy = _ACCESS.search(line), _COPY.search(line)
        if here in wide and access:
            widths.append(int(access.group(1) or 1) * int(access.group(2)))
        elif here in wide and copy:
            widths.append(8 * int(copy.group(1), 0))
    return min(widths, default=0)
