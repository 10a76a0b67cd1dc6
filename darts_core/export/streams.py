"""Streams for operations that do not wait for each other, inside one CUDA graph capture."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from darts_core.export.fused_plan import Step

__all__ = ["Streams"]

_STREAMS = 6


class Streams:
    """Streams for steps that do not wait for each other, inside one capture."""

    def __init__(self, device: torch.device) -> None:
        self.main = torch.cuda.current_stream(device)
        self.streams = [torch.cuda.Stream(device) for _ in range(_STREAMS)]
        self._tail: dict[int, Node | None] = {}
        self._made: dict[Node, tuple[int, Any]] = {}
        self._next = 0
        start = self.main.record_event()
        for stream in self.streams:
            stream.wait_event(start)

    def turn(self, step: Step) -> Any:
        """The stream for a step: where its last input was made, if nothing follows there yet."""
        lane = None
        reads = [node for node in step.reads if node in self._made]
        if step.into is not None and step.into[0] in self._made:
            reads.append(step.into[0])
        for node in reversed(reads):
            if self._tail.get(self._made[node][0]) is node:
                lane = self._made[node][0]
                break
        if lane is None:
            lane = self._next % _STREAMS
            self._next += 1
        stream = self.streams[lane]
        for node in reads:
            made_on, event = self._made[node]
            if made_on != lane:
                stream.wait_event(event)
        return _Turn(self, stream, lane, step.node)

    def done(self, lane: int, node: Node) -> None:
        """Note that `node` has been made on a stream."""
        self._tail[lane] = node
        self._made[node] = (lane, self.streams[lane].record_event())

    def join(self) -> None:
        """Let the capture's own stream wait for all of them."""
        for stream in self.streams:
            self.main.wait_event(stream.record_event())


class _Turn:
    def __init__(self, streams: Streams, stream: Any, lane: int, node: Node) -> None:
        self._streams, self._lane, self._node = streams, lane, node
        self._context = torch.cuda.stream(stream)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)
        self._streams.done(self._lane, self._node)
