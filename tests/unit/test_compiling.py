"""torch runs what comes after eight forms of one code uncompiled: each network has a code of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darts_core.bench.runtimes import prepare
from darts_core.latency.deployed import in_runtime
from darts_core.train import TrainConfig
from darts_core.train.precision import autocast_dtype, autocast_on, compiled


def benched(model: nn.Module, x_BC: Tensor) -> Any:
    device = torch.device("cpu")
    return prepare(model, "compile", device=device, bundle=None, folder=Path()).call(x_BC)


def trained(model: nn.Module, x_BC: Tensor) -> Any:
    return compiled(model, TrainConfig(compile=True), torch.device("cuda"))(x_BC)


def timed(model: nn.Module, x_BC: Tensor) -> Any:
    return in_runtime(model, x_BC, "compile")()


@pytest.mark.parametrize("run", [benched, trained, timed])
def test_every_one_of_many_networks_is_compiled(
    run: Callable[[nn.Module, Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    models = [nn.Linear(8, width).eval() for width in range(2, 12)]
    whole = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **_: whole(model, backend=backend))
    monkeypatch.setattr("darts_core.export.extras.shutil.which", lambda _: "g++")
    x_BC = torch.randn(3, 8)
    for number, model in enumerate(models, 1):
        before = len(made)
        with torch.no_grad():
            wanted = model(x_BC)
        torch.testing.assert_close(run(model, x_BC), wanted)
        assert len(made) > before, f"network {number} is not compiled"


def test_a_gpu_that_only_emulates_bf16_trains_in_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert autocast_dtype(TrainConfig(precision="bf16"), torch.device("cuda")) is None
    assert "bf16 is not fast on cuda; training in fp32" in caplog.text
    assert autocast_on("bf16", torch.device("cuda")) is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert autocast_dtype(TrainConfig(precision="bf16"), torch.device("cuda")) == torch.bfloat16
    caplog.clear()
    assert autocast_on("bf16", torch.device("cuda")) == torch.bfloat16
    assert autocast_on("bf16", torch.device("cpu")) is None
    assert not caplog.records  # a forecast says nothing: the training does
