"""Server-sent events: one watcher a topic, however many pages look; none where nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

__all__ = ["Watchers"]

_SHORTEST, _LONGEST = 1.0, 30.0
_SHARE = 0.015
"""Share of one processor core that looking for changes may take."""
_ALIVE_SECONDS = 15.0


class _Topic:
    """What is watched for some pages: its newest mark, and a bell that rings when it changes."""

    def __init__(self) -> None:
        self.mark = ""
        self.pages = 0
        self.bell = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def ring(self, mark: str) -> None:
        self.mark = mark
        self.bell.set()
        self.bell = asyncio.Event()


class Watchers:
    """The topics that somebody looks at.

    Args:
        mark: the present mark of a topic; called in a thread.
    """

    def __init__(self, mark: Callable[[str], str]) -> None:
        self._mark = mark
        self._topics: dict[str, _Topic] = {}

    def known(self, topic: str) -> str:
        """The newest mark of a topic that somebody looks at, at most a round of its watcher old; else ""."""
        found = self._topics.get(topic)
        return found.mark if found is not None else ""

    async def events(self, topic: str, seen: str) -> AsyncIterator[bytes]:
        """An event a change of the topic after the mark `seen`, and a comment now and then."""
        known = self._topics.setdefault(topic, _Topic())
        known.pages += 1
        if known.task is None:
            known.task = asyncio.create_task(self._watch(topic, known))
        try:
            yield b"retry: 3000\n\n"
            while True:
                bell = known.bell
                if known.mark and known.mark != seen:
                    seen = known.mark
                    yield f"id: {seen}\ndata: {seen}\n\n".encode()
                try:
                    await asyncio.wait_for(bell.wait(), _ALIVE_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            known.pages -= 1
            if not known.pages and known.task is not None:
                known.task.cancel()
                self._topics.pop(topic, None)

    async def _watch(self, topic: str, known: _Topic) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                begun = time.thread_time()
                mark, spent = await asyncio.to_thread(self._timed, topic)
                if mark != known.mark:
                    known.ring(mark)
                spent += time.thread_time() - begun
                await asyncio.sleep(min(_LONGEST, max(_SHORTEST, spent / _SHARE)))

    def _timed(self, topic: str) -> tuple[str, float]:
        begun = time.thread_time()
        mark = self._mark(topic)
        return mark, time.thread_time() - begun
