"""Which GPU the driver's tool is asked about: torch's numbers are not the driver's."""

import subprocess
from types import SimpleNamespace

import torch

from darts_core.latency.device import foreign_gpu_processes

OWN = "1e7ac9f2-0f2b-4e1c-9a53-4d1b2f0c7a11"


def test_the_tool_is_asked_about_the_gpu_that_torch_means(monkeypatch):
    asked = []

    def run(command, **_):
        asked.extend(word for word in command if word.startswith("--id="))
        return SimpleNamespace(stdout="1\n2\n")  # this process and another one

    found = {torch.device("cuda", 0): SimpleNamespace(uuid=OWN)}
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_properties", found.__getitem__)
    assert foreign_gpu_processes(torch.device("cuda", 0)) == 1
    assert asked == [f"--id=GPU-{OWN}"]
