"""Artifacts made on the device and run in a fresh process."""

import json
import subprocess
import sys

import pytest
import torch

from darts_core.architecture import Architecture
from darts_core.export import export_model
from darts_core.supernet import build

from .places import CPU, GPU

CASES = [
    pytest.param(CPU, ["pt2", "onnx"], id="cpu", marks=pytest.mark.full),
    pytest.param(
        GPU,
        ["pt2", "pt2_bf16", "pt2_fp16", "onnx", "aoti", "aoti_fp16", "fused_fp16", "fused_bf16"],
        id="cuda",
        marks=pytest.mark.gpu,
    ),
]
META = {
    "class_names": tuple("abcdefghij"),
    "image_shape": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}
FRESH = """
import json, sys
import torch
from darts_core.export import load

folder, device = sys.argv[1:]
x = torch.load(f"{folder}/x.pt").to(device)
found = {}
for name in json.load(open(f"{folder}/manifest.json"))["artifacts"]:
    model = load(folder, name, device=device, trust=True)
    with torch.inference_mode():
        found[name] = model(x).float().cpu()
torch.save(found, f"{folder}/found.pt")
"""


@pytest.mark.parametrize(("place", "formats"), CASES)
def test_artifacts_run_in_a_fresh_process(place, formats, tmp_path):
    torch.manual_seed(0)
    size = (8, 3) if place is CPU else (36, 8)
    model = build(Architecture.named("DARTS_V2"), channels=size[0], layers=size[1])
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
    model.eval()
    # untrained logits are close to each other: how often the top class agrees says little about them
    export_model(
        model, tmp_path, META, formats=formats, device=place.device, allow_accuracy_loss=True,
        time_artifacts=False,
    )  # fmt: skip
    # each louder than the one before: else untrained logits hardly depend on the image
    x = torch.randn(8, 3, 32, 32) * torch.arange(1.0, 9.0)[:, None, None, None]
    torch.save(x, tmp_path / "x.pt")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path), place.device],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "found.pt")
    assert (
        set(found)
        == set(formats)
        == set(json.loads((tmp_path / "manifest.json").read_text())["artifacts"])
    )
    with torch.no_grad():
        exact = model.double()(x.double())
    spread = (exact - exact.mean(0)).abs().max() / exact.abs().max()
    assert spread > 0.3, "one answer to all images would pass"
    for name, logits in found.items():
        low = "16" in name
        off = float((logits.double() - exact).abs().max() / exact.abs().max())
        # bf16 keeps 8 bits, and the error adds up over the layers
        assert off <= (0.1 if low else 1e-3), f"{name}: {off:.1e}"
