"""What torch's libraries keep in memory."""

import os
import subprocess
import sys

import pytest
import torch

from darts_core.memory import limit_primitive_cache

VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
# one layer at seventy sizes, and at the first one again
LAYERS = """
import sys, torch
from darts_core.memory import limit_primitive_cache
if sys.argv[1:]:
    limit_primitive_cache()
with torch.no_grad():
    for size in [*range(8, 78), 8]:
        torch.nn.functional.conv2d(torch.ones(1, 8, size, size), torch.ones(8, 8, 3, 3))
"""


def compiled(*words: str) -> int:
    """How often the first size was compiled, as oneDNN tells."""
    env = {k: v for k, v in os.environ.items() if k != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", LAYERS, *words],
        env={**env, "ONEDNN_VERBOSE": "profile_create"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sum("cache_miss" in line and "_ih8oh6" in line for line in done.stdout.splitlines())


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
def test_few_compiled_layers_are_kept_once_the_cache_is_limited():
    if compiled() != 1:
        pytest.skip("here this layer is not one of oneDNN's")
    assert compiled("limited") == 2


def test_a_value_of_the_user_s_stands(monkeypatch):
    monkeypatch.setenv(VARIABLE, "7")
    limit_primitive_cache()
    assert os.environ[VARIABLE] == "7"
