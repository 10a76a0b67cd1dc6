"""Where the checks of the fused search run: small on the CPU as a rehearsal, at full size on a GPU."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from darts_core.relax import Relaxation
from darts_core.spaces import get_space
from darts_core.stages.targets import instantiate
from darts_core.strategies import Strategy
from darts_core.supernet import Supernet

CONF = Path(__file__).resolve().parents[2] / "conf"
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
RELAXATIONS = sorted(path.stem for path in (CONF / "relax").glob("*.yaml"))

# what a strategy of a minute needs; everything else is the file's
SHORTER: dict[str, dict[str, Any]] = {
    "p_darts": {
        "stages": [{"skip_dropout": 0.3}, {"operations": 3, "skip_dropout": 0.4}],
        "rest_share": 0.0,
    },
    "drnas_progressive": {
        "stages": [{"channel_fraction": 2}, {"operations": 3, "channel_fraction": 1}],
        "rest_share": 0.0,
    },
    "rsps": {"samples": 4, "batches": 1, "finalists": 2},
    "random_search": {"candidates": 2},
    "regularized_evolution": {"candidates": 2, "population": 1},
    "zero_cost": {"samples": 2, "warm_start": 1.0},
    "oles": {"interval": 2, "threshold": 0.1},
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A device and the sizes that suit it."""

    device: str
    channels: int
    layers: int
    batch: int
    side: int
    steps: int

    @property
    def fast(self) -> str:
        """The fast path of the device."""
        return "fused" if self.device == "cuda" else "batched"

    def net(
        self,
        space: str = "darts",
        relaxation: Relaxation | None = None,
        *,
        seed: int = 0,
        path: str = "plain",
    ) -> Supernet:
        """A supernet with its own random generator on the device."""
        torch.manual_seed(seed)
        layers = 1 if space != "darts" else self.layers
        net = Supernet(
            get_space(space), channels=self.channels, layers=layers, relaxation=relaxation
        ).to(self.device)
        net.generator = torch.Generator(self.device).manual_seed(3)
        net.use_path(path)
        return net.train()

    def batches(self, step: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """A params batch and an alpha batch."""
        generator = torch.Generator().manual_seed(step)
        shape = (self.batch, 3, self.side, self.side)
        return tuple(
            (
                torch.randn(shape, generator=generator).to(self.device),
                torch.randint(10, (self.batch,), generator=generator).to(self.device),
            )
            for _ in range(2)
        )


CPU = Place("cpu", channels=4, layers=1, batch=4, side=6, steps=3)
GPU = Place("cuda", channels=16, layers=3, batch=64, side=32, steps=100)
PLACES = [
    pytest.param(CPU, id="cpu", marks=pytest.mark.full),
    pytest.param(GPU, id="cuda", marks=pytest.mark.gpu),
]


def made(group: str, name: str) -> Any:
    """The strategy or relaxation of a configuration file, shortened."""
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return instantiate(group, {**copy.deepcopy(node), **SHORTER.get(name, {})})


def evaluator(place: Place, net: Supernet) -> Any:
    """Accuracy of a forward function on two batches, as the loop would give it."""

    def accuracy(forward: Any, _: int | None) -> float:
        net.eval()
        with torch.no_grad():
            shares = [
                (forward(x).argmax(1) == y).double().mean()
                for x, y in (place.batches(1000)[0], place.batches(1001)[0])
            ]
        net.train()
        return float(torch.stack(shares).mean())

    return accuracy


def alphas_of(strategy: Strategy) -> torch.Tensor:
    """All alphas in one vector on the host."""
    alphas = strategy.supernet.alphas()
    return torch.cat([alpha.detach().double().cpu().flatten() for alpha in alphas])
