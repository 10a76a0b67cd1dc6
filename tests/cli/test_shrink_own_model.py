"""A network of one's own that `shrink` cannot take to its end."""

import torch

from darts_core import cli
from darts_core.models import trust

NETS = """
from torch import nn


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        y = self.a(x).mean((2, 3))
        if y.sum() > 0:
            y = y * 2
        return self.b(y)


def flow():
    return Flow()
"""


def test_what_cannot_be_exported_is_refused_before_it_is_trained(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_NAMED", set())
    (tmp_path / "flownets.py").write_text(NETS)
    import flownets

    torch.save(flownets.flow().state_dict(), "w.pt")
    own = ["shrink", "model=flownets:flow", "weights=w.pt", "plugins=[flownets]", "device=cpu"]
    assert cli.main([*own, "data=digits", "data.limit=60", "shrink.epochs=1", "job=a"]) == 2
    told = capfd.readouterr().err
    assert "torch.export rejects the model Flow" in told
    assert "shrink.export=false" in told
    assert "def forward" not in told  # torch prints its half-made graph
    assert "epoch 1/1" not in told
    assert not (tmp_path / "runs/a").exists()
