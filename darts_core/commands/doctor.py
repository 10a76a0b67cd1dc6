"""`darts-core doctor`: versions, device, the kernel path that would run, and what is missing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
from importlib import metadata
from typing import Any

from darts_core.processors import usable_processors
from darts_core.report.escape import plain_text

__all__ = ["configure", "examine", "lacking_sentence", "run"]

_REQUIRED = {
    "torch": "torch",
    "numpy": "numpy",
    "PyYAML": "yaml",
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "tensorboard": "tensorboard",
    "optuna": "optuna",
    "scipy": "scipy",
    "cmaes": "cmaes",
    "rich": "rich",
    "filelock": "filelock",
    "psutil": "psutil",
    "jinja2": "jinja2",
    "torch-pruning": "torch_pruning",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "matplotlib": "matplotlib",
    "pillow": "PIL",
    "kornia": "kornia",
    "scikit-learn": "sklearn",
}
_OPTIONAL = {
    "triton": ("triton", "the fused kernels on a GPU"),
    "pyarrow": ("pyarrow", "parquet data; extra [parquet]"),
    "submitit": ("submitit", "Slurm; extra [slurm]"),
    "ray": ("ray", "the Ray launcher; extra [ray]"),
    "hydra-joblib-launcher": (
        "hydra_plugins.hydra_joblib_launcher",
        "the joblib launcher; extra [joblib]",
    ),
    "optuna-dashboard": ("optuna_dashboard", "a web page of studies; extra [ui]"),
    "sqlalchemy": ("sqlalchemy", "studies in a data base; extra [sql]"),
    "psycopg": ("psycopg", "studies in PostgreSQL; extra [sql]"),
    "timm": ("timm", "model=timm:NAME; extra [timm]"),
    "starlette": ("starlette", "the live page; extra [web]"),
    "uvicorn": ("uvicorn", "the live page; extra [web]"),
    "openvino": ("openvino", "OpenVINO timings; extra [openvino]"),
    "tensorrt": ("tensorrt", "TensorRT engines; extra [tensorrt]"),
}
# distributions that unpack into one folder, each over the other
_ONE_FOLDER = ("onnxruntime", "onnxruntime-gpu")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 when nothing required is missing, else 1."""
    found = examine()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 1 if found["missing"] else 0


def lacking_sentence(error: BaseException) -> str | None:
    """The text to print where a package that each installation has is not here; None for another error.

    A module within one that is here, of another version, is not meant.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    for package, module in _REQUIRED.items():
        if module == name:
            return (
                f"darts-core needs {package}, which is not installed here: pip install {package}; "
                "`darts-core doctor` tells all that is missing."
            )
    return None


def _version(distribution: str, module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown version"


def examine() -> dict[str, Any]:
    """Versions, device, kernel path and missing packages as plain values."""
    versions = {name: _version(name, module) for name, module in _REQUIRED.items()}
    optional = {name: _version(name, module) for name, (module, _) in _OPTIONAL.items()}
    found: dict[str, Any] = {
        "darts-core": _version("darts-core", "darts_core"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"cores": os.cpu_count(), "usable": usable_processors(), "threads": None},
        "memory_gib": _memory_gib(),
        "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "versions": versions,
        "optional": optional,
        "missing": [name for name, version in versions.items() if version is None],
        "warnings": _overwritten(),
        "gpus": [],
        "kernel_path": "unknown: torch is missing",
    }
    if versions["torch"] is not None:
        try:
            _examine_torch(found)
        except (ImportError, OSError) as error:  # a library beside it is gone, or another
            found["missing"].append("torch")
            found["kernel_path"] = f"unknown: torch cannot be imported ({error})"
    return found


def _overwritten() -> list[str]:
    """A sentence where both ONNX Runtimes are installed, as by the extra [tensorrt]; pip warns of nothing."""
    try:
        for name in _ONE_FOLDER:
            metadata.version(name)
    except metadata.PackageNotFoundError:
        return []
    return [
        f"{' and '.join(_ONE_FOLDER)} are both installed and lie in one folder, where the one that was "
        "installed last is in force; for a GPU: pip install --force-reinstall --no-deps onnxruntime-gpu"
    ]


def _examine_torch(found: dict[str, Any]) -> None:
    """Add what only torch can tell."""
    import torch

    found["cpu"]["threads"] = torch.get_num_threads()
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        found["gpus"].append(
            {"name": about.name, "memory_gib": round(about.total_memory / 2**30, 1)}
        )
    if not found["gpus"]:
        why = "no CUDA in this torch" if torch.version.cuda is None else "no GPU is visible"
        found["kernel_path"] = f"CPU: batched torch operations, no Triton ({why})"
    elif found["optional"]["triton"] is None:
        found["kernel_path"] = "GPU: plain torch modules, because triton is missing"
    else:
        found["kernel_path"] = "GPU: fused Triton kernels"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _print(found: dict[str, Any]) -> None:
    cpu = found["cpu"]
    held = "" if cpu["usable"] == cpu["cores"] else f" ({cpu['usable']} for this process)"
    print(f"darts-core {found['darts-core']} on Python {found['python']}, {found['platform']}")
    print(
        f"CPU: {cpu['cores']} cores{held}, {cpu['threads']} torch threads, {found['memory_gib']} GiB memory, "
        f"{found['free_disk_gib']} GiB free on this disk"
    )
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in found["gpus"])
    print(f"GPU: {gpus or 'none'}")
    print(f"kernel path: {plain_text(found['kernel_path'])}")
    print("packages: " + ", ".join(f"{n} {v}" for n, v in found["versions"].items() if v))
    there = [f"{name} {version}" for name, version in found["optional"].items() if version]
    print("optional packages: " + (", ".join(there) or "none"))
    for name, (_, use) in _OPTIONAL.items():
        if found["optional"][name] is None:
            print(f"  not installed: {name} (for {use})")
    for sentence in found["warnings"]:
        print(f"  {sentence}")
    for name in found["missing"]:
        again = "--force-reinstall " if found["versions"][name] else ""
        print(f"  MISSING: {name}; install with: pip install {again}{name}")
