"""The backbone code: a network as a string such as `111-2111-211111-211`.

Stages are separated by `-`; each digit is one residual block. `1` keeps the base width, `2` doubles it
from this block on (doublings add up over the whole code). Every stage after the first begins with
stride 2. `111-2111-211111-211` is ResNet-50. A shape such as `3x64-2x96-1x256` (blocks x base width of
each stage; ours) writes widths that no doubling gives. Both are plain strings: this file needs no torch.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from darts_core.errors import ArchitectureError

__all__ = [
    "PUBLISHED_RESNET50",
    "STANDARD",
    "Block",
    "as_shape",
    "blocks",
    "check_code",
    "mutate",
    "named_code",
    "neighbours",
    "sample",
]

_SHAPE = re.compile(r"[1-9]\d{0,2}x[1-9]\d{0,4}(-[1-9]\d{0,2}x[1-9]\d{0,4}){0,7}")
MAX_BLOCKS = 200
MAX_STAGES = 8
MAX_DOUBLINGS = 6

# the codes of the four networks of the ResNet paper
STANDARD = {
    "resnet18": "11-21-21-21",
    "resnet34": "111-2111-211111-211",
    "resnet50": "111-2111-211111-211",
    "resnet101": "111-2111-2" + "1" * 22 + "-211",
}

# the eleven published candidates of the ResNet-50 space, in their published order
PUBLISHED_RESNET50 = (
    "1-11111111-2111121111-211111",
    "1-1112-1111111111121-11111112111",
    "1-11111121-12-11111211",
    "11-111112-112-11111211",
    "1-1-111111112-11212",
    "1-1-1-2112112",
    "1-111211-1111112-21111111",
    "1-1111111111-21112112-11111",
    "1-111111111112-121111111121-11",
    "11-211-121-11111121",
    "111-2111-211111-211",
)


@dataclass(frozen=True)
class Block:
    """One residual block: its stage (from 0), stride (1 or 2) and base width in channels."""

    stage: int
    stride: int
    width: int


def _reject(code: str, position: int, why: str) -> ArchitectureError:
    return ArchitectureError(
        f"Backbone code {code[:80]!r}, position {position}: {why}. A code is stages of digits 1 (keep the "
        "width) and 2 (double it) split by '-', such as '111-2111-211111-211'."
    )


def check_code(code: str) -> str:
    """`code` itself when it is well formed.

    Raises:
        ArchitectureError: it is not; the sentence names the first bad position (from 1).
    """
    if not isinstance(code, str) or not code:
        raise _reject(str(code), 1, "expected a non-empty string")
    for position, letter in enumerate(code, start=1):
        if letter not in "12-":
            raise _reject(code, position, f"{letter!r} is not 1, 2 or '-'")
        if letter == "-" and (position == 1 or code[position - 2] == "-"):
            raise _reject(code, position, "a stage without blocks")
    if code.endswith("-"):
        raise _reject(code, len(code), "a stage without blocks")
    for letter, limit, what in (("-", MAX_STAGES - 1, "stages"), ("2", MAX_DOUBLINGS, "doublings")):
        if code.count(letter) > limit:
            position = [i for i, found in enumerate(code) if found == letter][limit] + 1
            raise _reject(code, position, f"more than {limit + (letter == '-')} {what}")
    if len(code.replace("-", "")) > MAX_BLOCKS:
        raise _reject(code, MAX_BLOCKS + 1, f"more than {MAX_BLOCKS} blocks")
    return code


def named_code(name: str) -> str:
    """The code for `name`: a standard network (`resnet50`), a published choice (`resnet50/3`), a code or
    a shape.

    Raises:
        ArchitectureError: `name` is none of these.
    """
    if name in STANDARD:
        return STANDARD[name]
    if "x" in name and _SHAPE.fullmatch(name):
        return name
    family, _, index = name.partition("/")
    if family == "resnet50" and index.isdigit() and int(index) < len(PUBLISHED_RESNET50):
        return PUBLISHED_RESNET50[int(index)]
    return check_code(name)


def blocks(code: str, width: int = 64) -> list[Block]:
    """The blocks of a code in order, with `width` channels at its first `1`; a shape has its own widths."""
    result = []
    if "x" in code and _SHAPE.fullmatch(code):
        for stage, part in enumerate(code.split("-")):
            depth, _, own = part.partition("x")
            for index in range(int(depth)):
                result.append(Block(stage, 2 if stage > 0 and index == 0 else 1, int(own)))
        if len(result) > MAX_BLOCKS:
            raise _reject(code, 1, f"more than {MAX_BLOCKS} blocks")
        return result
    for stage, digits in enumerate(check_code(code).split("-")):
        for index, digit in enumerate(digits):
            width *= int(digit)
            result.append(Block(stage, 2 if stage > 0 and index == 0 else 1, width))
    return result


def as_shape(code: str, width: int = 64) -> str:
    """A code as blocks x width of each stage; a stage with several widths takes its last one."""
    stages: dict[int, tuple[int, int]] = {}
    for block in blocks(named_code(code), width):
        count, _ = stages.get(block.stage, (0, 0))
        stages[block.stage] = (count + 1, block.width)
    return "-".join(f"{count}x{last}" for count, last in stages.values())


def sample(
    rng: random.Random,
    *,
    stages: int = 4,
    doublings: int = 3,
    min_blocks: int = 5,
    max_blocks: int = 35,
) -> str:
    """A random code: `min_blocks`..`max_blocks` blocks over `stages`, `doublings` of them widening.

    Raises:
        ArchitectureError: the limits leave no code.
    """
    if not 1 <= stages <= MAX_STAGES or not stages <= max_blocks <= MAX_BLOCKS:
        raise ArchitectureError(
            f"No code has {stages} stages and at most {max_blocks} blocks; use 1..{MAX_STAGES} stages "
            f"and at least one block a stage, at most {MAX_BLOCKS}."
        )
    total = rng.randint(max(stages, min_blocks), max_blocks)
    if not 0 <= doublings <= min(total, MAX_DOUBLINGS):
        raise ArchitectureError(
            f"{doublings} doublings do not fit {total} blocks; use 0..{min(total, MAX_DOUBLINGS)}."
        )
    digits = ["1"] * total
    for position in rng.sample(range(total), doublings):
        digits[position] = "2"
    cuts = sorted(rng.sample(range(1, total), stages - 1))
    parts = [digits[a:b] for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
    return "-".join("".join(part) for part in parts)


def mutate(code: str, rng: random.Random, *, min_blocks: int = 5, max_blocks: int = 35) -> str:
    """A well-formed code one edit away: a block inserted, removed, or two neighbouring digits swapped.

    The number of stages and of doublings stays; blocks stay within the limits.
    """
    choices = neighbours(code, min_blocks=min_blocks, max_blocks=max_blocks)
    return rng.choice(choices) if choices else code


def neighbours(code: str, *, min_blocks: int = 5, max_blocks: int = 35) -> list[str]:
    """All codes one edit away, sorted: insert or remove a `1`, swap two different neighbouring symbols."""
    check_code(code)
    count = len(code.replace("-", ""))
    found: set[str] = set()
    for i in range(len(code) + 1):
        if count < max_blocks:
            found.add(code[:i] + "1" + code[i:])
        if count > min_blocks and i < len(code) and code[i] == "1":
            found.add(code[:i] + code[i + 1 :])
        if i + 1 < len(code) and code[i] != code[i + 1]:
            found.add(code[:i] + code[i + 1] + code[i] + code[i + 2 :])
    found.discard(code)
    return sorted(
        c for c in found if not (c.startswith("-") or c.endswith("-") or "--" in c or not c)
    )
