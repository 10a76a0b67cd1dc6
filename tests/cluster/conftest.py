"""A Ray cluster of several nodes on this machine. Skipped everyday, and where `NEEDS` are not installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from darts_core.bench.results import write_results

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_enable_metrics_collection", "0")
_TRIES = 10
_STORE_BYTES = 80 * 2**20


def pytest_collection_modifyitems(config, items):
    chosen = "cluster" in (config.option.markexpr or "")
    for item in items:
        if "cluster" not in item.keywords:
            continue
        needs = getattr(item.module, "NEEDS", ())
        lacking = [name for name in needs if importlib.util.find_spec(name) is None]
        if lacking:
            reason = f"{' and '.join(lacking)} not installed: make test-cluster"
        elif not chosen:
            reason = "starts a cluster of its own: make test-cluster"
        else:
            continue
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def figures():
    """Takes a row of `figures.row` for each fault; written where `FAULTS` names a folder."""
    rows = []
    yield rows.append
    if rows and (folder := os.environ.get("FAULTS")):
        notes = {
            "run_twice": "trials of which two workers wrote the end",
            "epochs_trained_again": "by a host that had no answer while it was cut off",
        }
        command = f"make test-cluster FAULTS={folder}"
        print(write_results("faults", rows, folder=folder, command=command, notes=notes))


@pytest.fixture
def cluster(monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    # the nodes find the tests' modules
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = Cluster()

    def add(cpus=1):
        # Ray gives a node's start thirty seconds, which other work on the machine may take
        for last in reversed(range(_TRIES)):
            try:
                more = {} if made.head_node else {"include_dashboard": False}
                return made.add_node(num_cpus=cpus, object_store_memory=_STORE_BYTES, **more)
            except Exception:
                if not last:
                    raise

    # the head holds no trial, so that any node with one can be killed
    add(0)
    made.add = add
    yield made
    ray.shutdown()
    made.shutdown()
