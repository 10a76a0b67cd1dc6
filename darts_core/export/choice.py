"""Which artifact of an export is run when none is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from darts_core.errors import ExportError, unknown_name
from darts_core.export.extras import obstacle
from darts_core.latency import device_name
from darts_core.reading import is_number

__all__ = ["PREFERENCES", "choose", "home_of"]

log = logging.getLogger("darts_core")

PREFERENCES = ("speed", "exact")
_EXACTNESS = {"fp32": 0, "fp16": 1, "bf16": 2}  # INT8 and what else there is come after these


def home_of(artifact: Mapping[str, Any], device: torch.device | None = None) -> torch.device:
    """Where an artifact runs: on `device`, else where it was exported for.

    Where that GPU is not there it is the first one, and where there is none the CPU.
    """
    if device is not None:
        return device
    wanted = torch.device(str(artifact.get("device", "cpu")))
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type == "cpu" or (wanted.index or 0) < there:
        return wanted
    return torch.device("cuda:0" if there else "cpu")


def choose(
    manifest: Mapping[str, Any],
    prefer: str | None = None,
    *,
    device: torch.device | None = None,
    trust: bool = False,
) -> str:
    """The name of an artifact that can run here. Every artifact of a manifest was verified.

    Args:
        manifest: as `read_manifest` gives it.
        prefer: `speed`: the lowest batch-1 time, of any precision. `exact`: full precision before reduced,
            and of equals the smallest error against the original. None: the fastest of full precision,
            or ONNX where none was timed.
        device: where it is to run, if not where it was exported for.
        trust: native code (AOTInductor) may be chosen, too.

    Raises:
        ExportError: `prefer` is unknown, or no artifact fits it.
    """
    if prefer is not None and prefer not in PREFERENCES:
        raise ExportError(unknown_name("preference", prefer, PREFERENCES))
    artifacts = manifest["artifacts"]
    able = [
        name
        for name, artifact in artifacts.items()
        if _runs(artifact, device, trust=trust and prefer is not None)
    ]
    if prefer == "exact" and able:
        return min(able, key=lambda name: (*_deviation(artifacts[name]), able.index(name)))
    if prefer == "speed":
        return _fastest(artifacts, able, device)
    full = [name for name in able if artifacts[name]["precision"] == "fp32"]
    timed = [name for name in full if _row(artifacts[name])]
    if prefer is None and timed:
        return min(timed, key=lambda name: (_milliseconds(artifacts[name]), name))
    for name in ("onnx", "pt2"):
        if name in full:
            return name
    raise ExportError(
        f"The export holds only {', '.join(artifacts) or 'nothing'}; name one with runtime=."
    )


def _runs(artifact: Mapping[str, Any], device: torch.device | None, *, trust: bool) -> bool:
    home = home_of(artifact, device)
    if artifact["kind"] != "aoti":
        return obstacle(artifact["kind"], home) is None
    # machine code is of its device alone, and needs no compiler any more
    return trust and home.type == torch.device(str(artifact.get("device", "cpu"))).type


def _fastest(
    artifacts: Mapping[str, Any], able: list[str], device: torch.device | None = None
) -> str:
    timed = [name for name in able if _row(artifacts[name])]
    if not timed:
        raise ExportError(
            "No artifact that can run here was timed at batch 1, so none is known to be the fastest; time "
            "them with `darts-core serve-bench DIR --tune`, or name one with runtime=."
        )
    best = min(timed, key=lambda name: (_milliseconds(artifacts[name]), name))
    rows = [_row(artifacts[name]) for name in timed]
    here = device_name(home_of(artifacts[best], device))
    if any(row.get("flagged") for row in rows) or any(
        row.get("device", here) != here for row in rows
    ):
        # what is measured on another device than the artifact's own is not kept
        if device is None or device.type == home_of(artifacts[best]).type:
            remedy = "--tune` measures them here"
        else:
            remedy = f"--device {device}` measures them there: name the fastest by runtime="
        log.warning(
            "%s is taken as the fastest by times of another machine or device, or measured beside other "
            "work; `darts-core serve-bench DIR %s",
            best,
            remedy,
        )
    return best


def _row(artifact: Mapping[str, Any]) -> Mapping[str, Any]:
    rows = artifact.get("latency") or {}
    return rows.get("1") or {}


def _milliseconds(artifact: Mapping[str, Any]) -> float:
    return float(_row(artifact)["median_ms"])


def _deviation(artifact: Mapping[str, Any]) -> tuple[int, float]:
    """Smaller is closer to the original."""
    error = artifact.get("relative_error")
    known = is_number(error) and error >= 0
    rank = _EXACTNESS.get(artifact["precision"], len(_EXACTNESS))
    return rank, float(error) if known else float("inf")  # type: ignore[arg-type]
