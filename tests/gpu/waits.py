"""Did the host wait for the device? What a profile says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

# calls of the driver that return only when the device is done, and torch's own reading of a scalar
WAITING = ("Synchronize", "cudaMemcpy", "cuMemcpy", "aten::_local_scalar_dense", "aten::nonzero")
# copies that are queued like a kernel; the profiler's name of the queueing call
QUEUED = ("cudaMemcpyAsync", "cuMemcpyAsync", "cudaMemcpy2DAsync", "cudaMemcpy3DAsync")


def host_waits(work: Callable[[], Any]) -> list[str]:
    """The names of the events inside `work` at which the host waited, and of copies to the host."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as profiler, record_function("the work"):
        work()
    events = list(profiler.events())
    (span,) = [e.time_range for e in events if e.name == "the work" and e.device_type.name == "CPU"]
    # the profiler itself waits for the device before and after
    inside = [e.name for e in events if span.start <= e.time_range.start <= span.end]
    found = [
        name for name in inside if any(w in name for w in WAITING) and not name.startswith(QUEUED)
    ]
    return found + [name for name in inside if name.startswith("Memcpy DtoH")]
