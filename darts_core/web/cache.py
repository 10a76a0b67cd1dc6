"""Pages kept until what they show has changed; of several that want one at once, one makes it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["PageCache"]


class PageCache:
    """The newest pages, at most `most_bytes` of them together."""

    def __init__(self, most_bytes: int = 16 * 2**20) -> None:
        self._most = most_bytes
        self._pages: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: str, mark: str, make: Callable[[], str]) -> bytes:
        """The page `key` as of `mark`, made now unless it is at hand."""
        with self._lock:
            own = self._locks.setdefault(key, threading.Lock())
        try:
            with own:
                with self._lock:
                    kept = self._pages.get(key)
                if kept is not None and kept[0] == mark:
                    return kept[1]
                page = make().encode("utf-8", "replace")
                with self._lock:
                    self._pages[key] = (mark, page)
                    self._pages.move_to_end(key)
                    while sum(len(p) for _, p in self._pages.values()) > self._most:
                        self._pages.popitem(last=False)
                return page
        finally:
            with self._lock:
                self._locks.pop(key, None)
