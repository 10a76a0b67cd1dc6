"""Settings that were once taken in silence, or ended as a defect: refused before a folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core import cli

REFUSED = [
    ("search", "search.momentum=-1"),
    ("search", "search.weight_decay=-1"),
    ("search", "search.alpha_beta1=1"),
    ("search", "search.alpha_beta2=-0.1"),
    ("search", "search.alpha_beta2=nan"),
    ("search", "search.alpha_weight_decay=-1"),
    ("search", "search.alpha_weight_decay=nan"),
    ("search", "seed=18446744073709551616"),
    ("search", "seed=9223372036854775808"),
    ("search", "search.channels=100000000"),
    ("search", "search.layers=100000000"),
    ("search", "search.grad_clip=-1"),
    ("search", "search.grad_clip=nan"),
    ("search", "search.max_minutes=-1"),
    ("search", "search.max_minutes=nan"),
    ("search", "search.min_learning_rate=-1"),
    ("search", "search.min_learning_rate=0.5"),
    ("search", "search.alpha_warmup_epochs=-1"),
    ("search", "search.checkpoint_every=-1"),
    ("search", "latency.rate=-1"),
    ("search", "latency.cost=watts"),
    ("search", "space.ops=[]"),
    ("search", "search.path=fast"),
    ("search", "search.kernel_precision=fp8"),
    ("search", "data=null"),
    ("search", "strategy=null"),
    ("search", "relax=null"),
    ("search", "+data.seed=abc"),
    ("search", "data.val_fraction=1"),
    ("search", "data.val_fraction=nan"),
    ("search", "data.limit=0"),
    ("search", "data.image_size=4"),
    ("search", "experiment=demoo"),
    ("search", "seeds=0"),
    ("tune", "tune.trials=0"),
    ("tune", "tune.workers=0"),
    ("tune", "tune.options.unknown=1"),
    ("tune", "+tune.options.unknown=1"),
    ("tune", "tune.options.max_failure_share=2"),
    ("prune", "prune.batch=-1"),
    ("prune", "prune.options.unknown=1"),
    ("prune", "+prune.options.rounds=0"),
    ("prune", "+prune.options.importance=tailor"),
    ("prune", "prune.options.least=0"),
    ("export", "export.options.unknown=1"),
    ("export", "+export.options.max_seconds=nan"),
    ("export", "export.options.batch_sizes=[0]"),
    ("bench", "bench.options.batch_sizes=[-1]"),
    ("bench", "bench.options.unknown=1"),
    ("bench", "bench.options.precisions=[fp64]"),
    ("bench", "bench.seconds=nan"),
    ("bench", "bench.seconds=0"),
    ("bench", "bench.baseline=nope"),
    ("run", "bench.baseline=nope"),
    ("search", "strategy=unrolled strategy.epsilon=true"),
    ("search", "search.guards.skips.share=much"),
]


@pytest.mark.parametrize(("command", "words"), REFUSED, ids=[" ".join(case) for case in REFUSED])
def test_it_is_one_sentence_and_leaves_nothing(
    command: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, *words.split()]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert words.split()[-1].partition("=")[0].lstrip("+").rpartition(".")[2] in line
    assert list(tmp_path.iterdir()) == []


def test_one_plus_sets_a_declared_setting_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "+prune.options.rounds=3",
        "++prune.epochs=4",
        "+data.seed=5",
        "+prune.options.least=0.5",
    ]
    assert cli.main(["prune", "--cfg", "job", *words]) == 0
    said = capsys.readouterr().out
    for text in ("rounds: 3", "epochs: 4", "seed: 5", "least: 0.5"):
        assert text in said
