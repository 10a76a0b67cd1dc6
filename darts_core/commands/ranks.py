"""`darts-core search`, `train` and `shrink` under torchrun: several processes, of which the first one writes.

    torchrun --nproc-per-node=2 -m darts_core.cli search device=cpu ...

torchrun tells every process its place in environment variables. The first process claims the version
and tells the others its name; they compute the same steps on their parts of the batches, and write and
print nothing. Nothing heavy is imported here before a group is joined.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from darts_core.errors import ConfigError, DeviceError
from darts_core.stages.schema import Stage

__all__ = ["Ranks", "current_ranks", "end_at_once", "in_process_group", "lost_process_told"]

# the stages whose training several processes share
SHARED = ("search", "train", "shrink")
_joined = False


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of torchrun: `rank` of 0 to `count` - 1."""

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def check(self, config: Stage, *, multirun: bool) -> None:
        """Refuse what several processes cannot do together.

        Raises:
            ConfigError: it is none of them or more than one, or `device` names one GPU for all processes.
        """
        if config.STAGE not in SHARED:
            raise ConfigError(
                f"torchrun is for `darts-core {', '.join(SHARED)}`; run `darts-core {config.STAGE}` "
                "without it."
            )
        if multirun or getattr(config, "seeds", 1) != 1:
            raise ConfigError(
                f"Under torchrun one {config.STAGE} runs at a time: leave out -m and seeds=, and start "
                "one command for each seed."
            )
        if config.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"device={config.device} is one device; under torchrun every process takes its own: "
                "use device=auto, cuda or cpu."
            )

    def join(self, config: Stage) -> None:
        """Join the process group: gloo for `device=cpu`, else what fits the machine.

        Raises:
            ConfigError: a batch cannot be divided equally.
            DeviceError: there are more processes than GPUs, or none where `device=cuda` asks for them.
        """
        from darts_core.device import require_device
        from darts_core.distributed import current_group, join_group

        if not self.first:
            # no handler at all would let warnings through
            logging.getLogger("darts_core").addHandler(logging.NullHandler())
        if config.device == "cuda":
            require_device("cuda")  # else all would run on the CPU without a word
        join_group("gloo" if config.device == "cpu" else None)
        global _joined
        _joined = True
        group = current_group()
        assert group is not None, "it was joined just now"
        node = "search" if config.STAGE == "search" else "train"
        # before anything is loaded or measured
        group.check_batch(f"{node}.batch_size", getattr(config, node).batch_size)

    def share(self, version: Path | None) -> Path | None:
        """The first process's `version` in all processes; None tells them that nothing is to do."""
        from darts_core.distributed import current_group

        group = current_group()
        assert group is not None, "join comes first"
        text = group.text("" if version is None else str(version))
        return Path(text) if text else None

    def leave(self) -> None:
        """Leave the process group."""
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()

    def command_line(self, command: str) -> str:
        """`command` (as it is typed without torchrun) with torchrun before it."""
        local = os.environ.get("LOCAL_WORLD_SIZE", str(self.count))
        rest = command.removeprefix("darts-core ")
        return f"torchrun --nproc-per-node={local} -m darts_core.cli {rest}"


@contextmanager
def lost_process_told() -> Iterator[None]:
    """A block in which the end of another process of the group is one sentence.

    Raises:
        DeviceError: another process has ended while this one waited for it.
    """
    try:
        yield
    except RuntimeError as error:
        if not (_joined and _is_lost(error)):
            raise
        raise DeviceError(
            "Another process that torchrun started has ended, so this one ends, too; when the reason is "
            "gone, the same command goes on from the last checkpoint."
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    from torch import distributed

    # gloo's own errors have no class of their own
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


def in_process_group() -> bool:
    """Whether this process has ever joined a process group."""
    return _joined


def end_at_once(status: int) -> NoReturn:
    """End the process without taking the interpreter down.

    A worker thread of gloo may still be letting go of its last tensor. If it asks for the interpreter
    while that is taken down, the process aborts (SIGABRT) after all its work is done.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def current_ranks() -> Ranks | None:
    """What torchrun says; None in a process of its own.

    Raises:
        ConfigError: the variables do not hold numbers.
    """
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    # other launchers set some of these for their own purposes
    if rank is None or count is None or "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    if not (rank.isdigit() and count.isdigit()):
        raise ConfigError(
            f"RANK={rank!r} and WORLD_SIZE={count!r} must be numbers, as torchrun sets."
        )
    return Ranks(int(rank), int(count)) if int(count) > 1 else None
