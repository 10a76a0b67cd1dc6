"""Which setting mattered, worked out by another process: its numerics would treble this one's memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from darts_core.runlog import plain
from darts_core.store.procs import OWN_FIRST

__all__ = ["RemoteShares"]

_KEPT, _SECONDS = 64, 120.0


class RemoteShares:
    """`darts_core.study.importance.importance` with a memory; an answer not yet at hand is empty.

    One process at a time works; a search whose trials have grown by less than a tenth since the last
    answer keeps that one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, dict[str, float]]] = OrderedDict()
        self._busy = threading.Lock()
        self.answers = 0

    def __call__(
        self,
        settings: Sequence[Mapping[str, Any]],
        values: Sequence[float],
        *,
        maximize: bool,
        of: str = "",
    ) -> Mapping[str, float]:
        """The shares as far as they are known; `of` names the search."""
        if len(settings) < 4:
            return {}
        asked = {"settings": plain(list(settings)), "values": list(values), "maximize": maximize}
        # the first trials tell the searches of a version apart; another version may have begun alike
        first = json.dumps([of, asked["settings"][:4], asked["values"][:4], maximize])
        key = blake2b(first.encode(), digest_size=12).hexdigest()
        count, shares = self._known.get(key, (0, {}))
        if len(settings) >= count * 1.1 + 1 or (not count and settings):
            self._ask(key, asked, len(settings))
        return shares

    def _ask(self, key: str, asked: Mapping[str, Any], count: int) -> None:
        if self._busy.acquire(blocking=False):
            threading.Thread(target=self._work, args=(key, asked, count), daemon=True).start()

    def _work(self, key: str, asked: Mapping[str, Any], count: int) -> None:
        code = f"{OWN_FIRST}; from darts_core.study.importance import main; main()"
        try:
            done = subprocess.run(
                [sys.executable, "-c", code],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_SECONDS,
            )
            found = json.loads(done.stdout) if done.returncode == 0 else {}
        except (OSError, ValueError, subprocess.SubprocessError):
            found = {}
        finally:
            self._busy.release()
        self._known[key] = (count, {str(k): float(v) for k, v in found.items()})
        self.answers += 1
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
