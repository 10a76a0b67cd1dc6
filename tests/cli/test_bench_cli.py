"""`darts-core bench` through the command line: one model over runtimes, and a table of strategies."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core import cli
from darts_core.bench.results import read_results
from darts_core.report.read import read_rows

TINY = [
    "data=digits", "data.limit=300", "data.test_limit=100", "train.epochs=1", "train.batch_size=64",
    "train.drop_path=0", "bench.seconds=0.03", "bench.options.seeds=2", "bench.options.width=4",
]  # fmt: skip


def test_one_model_in_several_runtimes_is_trained_once_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status = cli.main(
        ["bench", "-m", "model=resnet8", "runtime=eager,channels_last", "job=b",
         "bench.options.results=kept", *TINY]
    )  # fmt: skip
    assert status == 0
    version = tmp_path / "runs" / "b" / "V001"
    assert len(list(version.glob("trained/*/seed*/model.pt"))) == 2
    first, second = (read_rows(version / str(i) / "bench" / "results.json")[0] for i in (0, 1))
    assert (first.runtime, second.runtime) == ("eager", "channels_last")
    assert first.accuracies == second.accuracies
    assert first.n == 2
    assert set(first.latency) == {1, 32}
    assert (version / "models.png").is_file()
    assert "channels_last" in (version / "models.md").read_text()
    (kept,) = (tmp_path / "kept").glob("*.json")
    assert [row.runtime for row in read_results(kept).models()] == ["eager", "channels_last"]
    # not the command line of whatever process ran the last element
    assert read_results(kept).command.startswith("darts-core bench -m model=resnet8 runtime=eager,")
    assert "resnet8" in capsys.readouterr().out


def test_a_swept_augmentation_is_a_training_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["model=resnet8", "runtime=eager", "augment=none,trivialaugment", "job=b"]
    assert cli.main(["bench", "-m", *words, *TINY, "bench.options.seeds=1"]) == 0
    version = tmp_path / "runs" / "b" / "V001"
    assert len(list(version.glob("trained/*/seed*/model.pt"))) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=resnet8", "runtime=eagre"], "Did you mean 'eager'"),
        (["model=resnet8", "+bench.options.sedes=1"], "Did you mean 'bench.options.seeds'"),
        (["model=resnte8"], "resnet8"),
        (["what=tabular"], "bench.options.table=PATH"),
        (["what=tabular", "bench.options.table=none.csv"], "There is no file none.csv"),
    ],
)
def test_mistakes_end_in_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *words, *TINY]) == 2
    assert sentence in capsys.readouterr().err


def test_strategies_are_compared_on_a_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ops = ("none", "skip_connect", "nor_conv_3x3")
    lines = [f"|{a}~0|+|{b}~0|{c}~1|,{50 + 10 * (a + b + c).count('nor')}"
             for a in ops for b in ops for c in ops]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["architecture,accuracy", *lines]))
    words = ["bench", "what=tabular", "job=t", "bench.options.table=t.csv",
             "bench.options.budget=10", "bench.options.seeds=4"]  # fmt: skip
    assert cli.main(words) == 2
    assert "bench.options.select is needed" in capsys.readouterr().err
    assert cli.main([*words, "bench.options.select=default"]) == 0
    shown = capsys.readouterr().out
    assert "regularised evolution" in shown
    assert "random search" in shown
    version = tmp_path / "runs" / "t" / "V001"
    assert (version / "bench" / "results.json").is_file()
    # whose rows are strategies, not models that a page would miss the names of
    assert cli.main(["report", "job=t"]) == 0
    page = (version / "report.html").read_text()
    assert "Benchmark: tabular" in page
    assert "regularised evolution" in page
    assert "has no name" not in page
