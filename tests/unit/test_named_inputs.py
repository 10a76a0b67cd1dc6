"""Several named inputs: one row of numbers, taken apart and normalised in front of a network of one's own."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from darts_core import cli
from darts_core.bench.runtimes import _Typed
from darts_core.data import load_data
from darts_core.errors import ConfigError, DataError
from darts_core.export import load, predict
from darts_core.export.formats import Cast
from darts_core.models.by_name import ByName
from darts_core.named_inputs import NamedInput, pack, read_named
from darts_core.runlog import read_json
from darts_core.train.save import load_model

NETWORK = """
    import torch
    from torch import nn

    class Both(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.picture = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU())
            self.words = nn.Embedding(7, 16)
            self.head = nn.Linear(33, classes)

        def forward(self, words, image, age):
            assert words.dtype == torch.int64
            return self.head(torch.cat([self.picture(image).mean((2, 3)), self.words(words).mean(1), age], 1))

    def both(num_classes):
        return Both(num_classes)
"""


def arrays(count: int = 96) -> dict[str, np.ndarray]:
    """Three inputs, each of which tells a part of the class."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    image = rng.integers(0, 156, (count, 3, 8, 8))
    image[y == 1, 0] += 100
    words = rng.integers(0, 6, (count, 5))
    words[y == 1, :2] = 6
    age = rng.normal(size=count) + y
    return {
        "x_image": image.astype(np.uint8), "x_words": words, "x_age": age.astype(np.float32), "y": y,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("several", None)
    (tmp_path / "several.py").write_text(textwrap.dedent(NETWORK))
    np.savez("a.npz", **arrays())
    return tmp_path


def test_a_row_is_taken_apart_into_normalised_inputs(folder: Path) -> None:
    bundle = load_data("npz", folder / "a.npz")
    assert bundle.kind == "named"
    assert [(one.name, one.shape, one.tokens) for one in bundle.named] == [
        ("age", (1,), 0), ("image", (3, 8, 8), 0), ("words", (5,), 7),
    ]  # fmt: skip
    rows = bundle.normalize(bundle.split("params").inputs)
    found = ByName(nn.Identity(), bundle.named).named(rows)
    kept = bundle.parts["params"].numpy()
    order = np.concatenate(list(bundle.parts.values()))
    assert len(order) == 96
    image = found["image"].double()
    assert float(image.mean((0, 2, 3)).abs().max()) < 1e-5
    assert float((image.std((0, 2, 3), correction=0) - 1).abs().max()) < 1e-5
    assert float(found["age"].mean().abs()) < 1e-5
    assert found["words"].dtype == torch.int64
    assert len(kept) == len(rows)
    # the raw values are those of the file
    seen = {tuple(row) for row in arrays()["x_words"].tolist()}
    assert {tuple(row) for row in found["words"].tolist()} <= seen


def test_a_network_of_several_inputs_is_trained_exported_measured_and_asked(folder: Path) -> None:
    words = ["data=npz", "data.path=a.npz", "job=two", "version=V001", "device=cpu"]
    small = ["train.epochs=8", "train.batch_size=16", "train.learning_rate=0.1"]
    assert cli.main(["train", *words, *small, "model=several:both"]) == 0
    version = folder / "runs" / "two" / "V001"
    assert read_json(version / "train" / "result.json")["val_accuracy"] > 0.9
    model, meta = load_model(version / "train" / "model.pt")
    assert isinstance(model, ByName)
    files = ["export.formats=[onnx]", "export.options.max_seconds=0.05"]
    assert cli.main(["export", *words, *files, "plugins=[several]"]) == 0
    assert cli.main(["bench", *words, "bench.seconds=0.05", "plugins=[several]"]) == 0
    rows = read_json(version / "bench" / "results.json")["rows"]
    assert {row["kind"] for row in rows} == {"trained", "exported"}
    loaded = load(version / "export", device="cpu")
    one = {key.removeprefix("x_"): value[:4] for key, value in arrays().items() if key != "y"}
    row, _ = pack(one, "a request", loaded.described.named)
    with torch.no_grad():
        wanted = model(torch.from_numpy(row))
    torch.testing.assert_close(loaded(torch.from_numpy(row)), wanted, rtol=1e-4, atol=1e-5)
    np.savez("one.npz", **{name: value[1] for name, value in one.items()})
    (said,) = predict(loaded, [folder / "one.npz"])
    answer = torch.softmax(loaded(torch.from_numpy(row)), 1)[1]
    assert said.probability == pytest.approx(float(answer.max()), abs=1e-5)
    assert meta["model"]["inputs"][0]["name"] == "age"


class Dated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.year = nn.Embedding(1000, 3), nn.Linear(1, 3)

    def forward(self, words: torch.Tensor, year: torch.Tensor) -> torch.Tensor:
        return self.words(words).sum(1) + self.year(year)


@pytest.mark.parametrize("kind", [Cast, _Typed])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_rounds_neither_token_numbers_nor_raw_values(
    kind: Any, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    inputs = (NamedInput("words", (2,), 1000), NamedInput("year", (1,), 0, (200_000.0,), (50.0,)))
    model = ByName(Dated(), inputs).eval()
    row_B1F = torch.tensor([[[997.0, 501.0, 200_030.0]], [[257.0, 998.0, 199_950.0]]])
    wanted = model(row_B1F).detach()
    found = kind(model, dtype, channels_last=False).eval()(row_B1F)
    torch.testing.assert_close(found.detach(), wanted, rtol=0.02, atol=0.03)


@pytest.mark.parametrize("command", ["search", "train"])
def test_networks_of_one_input_are_refused_in_a_sentence(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["architecture=resnet8"] if command == "train" else ["space=conv1d"]
    assert cli.main([command, "data=npz", "data.path=a.npz", "device=cpu", *extra]) == 2
    said = capsys.readouterr().err
    assert "has several inputs (age [1], image [3, 8, 8], words [5] (tokens))" in said
    # `search model=` is no way out
    assert "darts-core train model=package.module:function" in said
    assert not (folder / "runs").exists() or not list((folder / "runs").glob("*/V*"))


def test_a_recipe_for_several_inputs_is_tuned(folder: Path) -> None:
    words = ["data=npz", "data.path=a.npz", "job=two", "device=cpu", "tune.trials=3"]
    small = ["train.epochs=1", "train.batch_size=16", "tune.pruner=none", "tune.sampler=random"]
    # of the sizes that are tried by default, two are larger than the 65 samples
    space = ["~tune.space.learning_rate", "~tune.space.weight_decay", "~tune.space.drop_path"]
    assert cli.main(["tune", *words, *small, *space, "model=several:both"]) == 0
    found = read_json(folder / "runs" / "two" / "V001" / "tune" / "result.json")
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 3
    assert {trial["params"]["batch_size"] for trial in found["trials"]} <= {16, 32, 64}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x_age": np.zeros(95)}, "95 of age, 96 of image"),
        ({"x_age": np.full(96, np.nan)}, "age holds NaN"),
        ({"x_words": np.full((96, 5), -1)}, "token number -1"),
        ({"x_image": np.full((96, 2), "a")}, "image has dtype <U1"),
    ],
)
def test_what_does_not_fit_is_a_sentence(folder: Path, change: dict, why: str) -> None:
    np.savez("bad.npz", **{**arrays(), **change})
    with pytest.raises(DataError, match=why):
        load_data("npz", folder / "bad.npz")


def test_a_damaged_description_is_a_sentence() -> None:
    good = NamedInput("image", (3, 2), 0, (0.0,) * 3, (1.0,) * 3).described()
    assert read_named([good], "x")[0].shape == (3, 2)
    for change in (
        {"name": "a b"},
        {"shape": [0]},
        {"std": [1.0, 0.0, 1.0]},
        {"mean": []},
        {"tokens": -1},
    ):
        with pytest.raises(ConfigError, match="damaged"):
            read_named([{**good, **change}], "x")
    with pytest.raises(ConfigError, match="one name"):
        read_named([good, good], "x")


def test_whole_numbers_are_values_of_an_input_that_is_known_to_be_values() -> None:
    known = (NamedInput("sizes", (3,), 0, (0.0,) * 3, (1.0,) * 3), NamedInput("words", (2,), 7))
    words = np.array([[1, 6]])
    rows, inputs = pack({"sizes": np.array([[-2, 5, 300]]), "words": words}, "one.npz", known)
    assert rows.tolist() == [[[-2.0, 5.0, 300.0, 1.0, 6.0]]]
    assert inputs == known
    with pytest.raises(DataError, match="holds the token number 7; allowed are 0 to 6"):
        pack({"sizes": np.zeros((1, 3)), "words": words + 1}, "one.npz", known)
    with pytest.raises(DataError, match="words has dtype float64"):
        pack({"sizes": np.zeros((1, 3)), "words": words + 0.5}, "one.npz", known)
