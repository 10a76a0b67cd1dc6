"""The winner outside its job: built again with its weights, described, exported and explained."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from autosearch_workshop import BASE, log_of, one

from darts_core import autosearch
from darts_core.autosearch import contract
from darts_core.autosearch.networks import NETWORK, WEIGHTS
from darts_core.autosearch.take_home import take_home
from darts_core.errors import ConfigError, DataError
from darts_core.export import load, predict

CHOICES = """
import torch
from torch import nn
from darts_core import autosearch
from darts_core.supernet.choices import WidthChoice

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
                                  WidthChoice([2, 8], label="width"),
                                  nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    def forward(self, x):
        return self.body(x)

def train():
    model = autosearch.searchable(Net(), (1, 8, 8))
    model.eval()
    with torch.no_grad():
        print("output", model(torch.ones(1, 1, 8, 8)).tolist())
    autosearch.report(0.5)
"""
MARKED = """
import torch
from torch import nn
from darts_core import autosearch

@autosearch.network
def build(classes, bias=True):
    return nn.Linear(autosearch.config["x"], classes, bias=bias)

def train():
    model = build(3, bias=False)
    with torch.no_grad():
        print("output", model(torch.ones(1, autosearch.config["x"])).tolist())
    autosearch.report(0.5)
"""


def trial_of(shop, source, config):
    workshop = shop(source)
    row = one(workshop, config=config)
    assert row["state"] == "done", log_of(workshop, row)
    folder = workshop.version / "autosearch/trials" / row["trial_id"]
    lines = log_of(workshop, row).splitlines()
    output = next(json.loads(line[7:]) for line in lines if line.startswith("output "))
    return workshop, {**row, "folder": str(folder)}, output


def taken(workshop, row, tmp_path):
    folder = tmp_path / "best"
    (workshop.version / "code").symlink_to(tmp_path / "code")
    take_home(workshop.version, {"best": row, "verdict": "better."}, folder)
    return folder


def test_a_searched_network_is_exported_and_built_again_with_the_users_code_alone(shop, tmp_path):
    config = {"architecture": '{"width": 2}'}
    workshop, row, output = trial_of(shop, CHOICES, config)
    best = taken(workshop, row, tmp_path)
    code = f"""
        import json, torch
        from darts_core import autosearch
        model = autosearch.load({str(best)!r}, code={str(tmp_path / "code")!r})
        assert not model.training
        print(json.dumps([model.body[0].out_channels, model(torch.ones(1, 1, 8, 8)).tolist()]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    channels, again = json.loads(done.stdout)
    assert channels == 2
    assert torch.allclose(torch.tensor(again), torch.tensor(output), atol=1e-6)

    # settings, description, verified files and a README stand beside the weights
    assert json.loads((best / "config.json").read_text()) == row["config"]
    described = json.loads((best / NETWORK).read_text())
    assert (described["builder"], described["input_shape"]) == ("boot:Net", [1, 8, 8])
    readme = (best / "README.md").read_text()
    assert len(readme.splitlines()) <= 10
    assert "autosearch.load" in readme
    assert "verified" in readme
    program = torch.export.load(best / "exported" / "model.pt2").module()
    with torch.no_grad():
        again = program(torch.ones(1, 1, 8, 8))
    assert torch.allclose(again, torch.tensor(output), atol=1e-5)
    assert (best / "exported" / "model.onnx").is_file()
    # the file takes what the user's code makes of an image; of one in a file nobody here knows that
    described = json.loads((best / "exported" / "manifest.json").read_text())
    assert (described["unit"], described["input"].rpartition(", ")[2]) == (
        1,
        "(value - mean) / std",
    )
    with pytest.raises(DataError, match=r"takes values of shape \[1, 8, 8\]; give \.npy files"):
        predict(best / "exported", "digit.png")


def answers_alike(best, sample, output):
    """The verified exports are there, and one of them answers as the trial did."""
    assert "verified" in (best / "README.md").read_text()
    program = torch.export.load(best / "exported" / "model.pt2").module()
    with torch.no_grad():
        assert torch.allclose(program(sample), torch.tensor(output), atol=1e-5)
    assert (best / "exported" / "model.onnx").is_file()


def test_a_network_over_series_is_exported_too(shop, tmp_path):
    source = (
        CHOICES.replace("Conv2d", "Conv1d").replace("Norm2d", "Norm1d").replace("Pool2d", "Pool1d")
    )
    source = source.replace("(1, 8, 8)", "(1, 8)").replace("(1, 1, 8, 8)", "(1, 1, 8)")
    workshop, row, output = trial_of(shop, source, {"architecture": '{"width": 2}'})
    sys.modules.pop("boot", None)
    best = taken(workshop, row, tmp_path)
    sys.modules.pop("boot", None)
    answers_alike(best, torch.ones(1, 1, 8), output)


def test_a_marked_function_is_called_again_with_its_arguments_and_settings(shop, tmp_path):
    workshop, row, output = trial_of(shop, MARKED, {"x": 2})
    best = taken(workshop, row, tmp_path)
    sys.modules.pop("boot", None)
    try:
        model = autosearch.load(best, code=tmp_path / "code")
    finally:
        sys.modules.pop("boot", None)
    assert model(torch.ones(1, 2)).tolist()[0] == pytest.approx(output[0])
    assert contract.current().config == {}
    assert "its input shape is not known" in (best / "README.md").read_text()


def test_a_network_of_several_inputs_is_kept_with_their_shapes(shop):
    shapes = "input_shape=((2,), (3,))"
    source = MARKED.replace("autosearch.network", f"autosearch.network({shapes})", 1)
    _, row, _ = trial_of(shop, source, {"x": 2})
    kept = json.loads((Path(row["folder"]) / NETWORK).read_text())
    assert (kept["input_shape"], kept["answers"]) == ([[2], [3]], None)


def test_a_network_over_values_is_exported_too(shop, tmp_path, monkeypatch):
    source = MARKED.replace("autosearch.network", "autosearch.network(input_shape=(2,))", 1)
    workshop, row, output = trial_of(shop, source, {"x": 2})
    sys.modules.pop("boot", None)
    best = taken(workshop, row, tmp_path)
    sys.modules.pop("boot", None)
    answers_alike(best, torch.ones(1, 1, 2), output)

    def fail(*_, **__):
        raise RuntimeError("No ONNX function for aten.foo")

    # what one format cannot express is written in the other, and told
    monkeypatch.setattr(torch.onnx, "export", fail)
    take_home(workshop.version, {"best": row, "verdict": "better."}, best)
    sys.modules.pop("boot", None)
    readme = (best / "README.md").read_text()
    assert (
        "Left out is `onnx`: The model cannot be written as ONNX: RuntimeError: No ONNX" in readme
    )
    assert load(best / "exported")(torch.ones(1, 1, 2)).tolist()[0] == pytest.approx(output[0])


def test_the_winner_of_a_script_is_its_command_line(shop, tmp_path):
    script = "import sys; print('acc 0.5')"
    command = "python boot.py --lr {lr} --note 'a b' --seed {seed}"
    spec = replace(
        BASE,
        metrics=({"name": "acc", "regex": "acc ([0-9.]+)"},),
        arguments="template",
        command=command,
    )
    workshop = shop(script)
    row = one(workshop, spec, {"lr": 0.5})
    folder = workshop.version / "autosearch/trials" / row["trial_id"]
    best = taken(workshop, {**row, "folder": str(folder)}, tmp_path)
    readme = (best / "README.md").read_text()
    assert "train once more: `python boot.py --lr 0.5 --note 'a b' --seed 1`" in readme


@pytest.mark.parametrize("guard", [True, False])
def test_the_network_of_a_script_is_built_from_the_script_unless_that_would_train(
    shop, tmp_path, guard
):
    body = "Net = autosearch.searchable(Net(), (1, 8, 8))\nprint('acc 0.5')"
    if guard:
        body = "if __name__ == '__main__':\n" + textwrap.indent(body, "    ")
    source = CHOICES[: CHOICES.index("def train")] + body
    spec = replace(BASE, metrics=({"name": "acc", "regex": "acc ([0-9.]+)"},), arguments="none")
    workshop = shop(source)
    row = one(workshop, spec, {"architecture": '{"width": 2}'})
    folder = workshop.version / "autosearch/trials" / row["trial_id"]
    best = taken(workshop, {**row, "folder": str(folder)}, tmp_path)
    described = json.loads((best / NETWORK).read_text())
    assert described["builder"] == ("boot:Net" if guard else None)
    sys.modules.pop("boot", None)
    try:
        if guard:
            assert autosearch.load(best, code=tmp_path / "code").body[0].out_channels == 2
        else:
            with pytest.raises(ConfigError, match="made in place"):
                autosearch.load(best, code=tmp_path / "code")
    finally:
        sys.modules.pop("boot", None)


def test_a_network_made_in_place_needs_a_function(shop, tmp_path):
    source = CHOICES.replace("searchable(Net()", "searchable(Net().body")
    workshop, row, _ = trial_of(shop, source, {"architecture": '{"width": 8}'})
    best = taken(workshop, row, tmp_path)
    with pytest.raises(ConfigError, match="made in place"):
        autosearch.load(best, code=tmp_path / "code")
    # one who gave a function is not told to give one
    with pytest.raises(ConfigError, match=r"do not fit .*Linear\): it was .*Let build\(\) return"):
        autosearch.load(best, build=lambda: torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("builder", "sentence"),
    [
        ("os:system", "no module 'os'"),
        ("boot:helper", "no function marked"),
        (None, "made in place"),
        # it was called with a config object, of which the text is kept
        (
            "boot:build",
            "boot:build cannot be called again .*has no attribute 'width'.*build=make_model",
        ),
    ],
)
def test_a_doctored_description_calls_nothing(tmp_path, builder, sentence):
    (tmp_path / "boot.py").write_text(
        "from darts_core import autosearch\n"
        "def helper(text): raise SystemError(text)\n"
        "@autosearch.network\ndef build(config): return config.width\n"
    )
    content = {"builder": builder, "arguments": ["touch x"], "config": {}}
    (tmp_path / NETWORK).write_text(json.dumps(content))
    torch.save({}, tmp_path / WEIGHTS)
    sys.modules.pop("boot", None)
    try:
        with pytest.raises(ConfigError, match=sentence):
            autosearch.load(tmp_path, code=tmp_path)
    finally:
        sys.modules.pop("boot", None)


def test_a_folder_without_a_network_says_what_to_mark(tmp_path):
    with pytest.raises(ConfigError, match=r"@autosearch\.network"):
        autosearch.load(tmp_path)


def test_a_trial_without_a_network_keeps_none(shop):
    workshop = shop("from darts_core import autosearch\ndef train(): autosearch.report(0.5)")
    row = one(workshop, BASE)
    assert not (workshop.version / "autosearch/trials" / row["trial_id"] / NETWORK).exists()


@pytest.mark.parametrize("ours", [True, False])
def test_an_export_leaves_nothing_of_another_winner(tmp_path, ours):
    best, trial = tmp_path / "best", tmp_path / "trial"
    (best / "exported").mkdir(parents=True)
    trial.mkdir()
    for name in ("exported/model.pt2", NETWORK, WEIGHTS):
        (best / name).write_text("another's")
    if ours:  # as `jobs best --export` wrote it before the search had come to its end
        (best / "best.json").write_text(
            json.dumps({"best": {"trial_id": "a"}, "verdict": "better."})
        )
    row = {"trial_id": "b", "folder": str(trial), "config": {"x": 2}}
    take_home(tmp_path / "V001", {"best": row, "verdict": "better."}, best)
    left = [(best / name).exists() for name in ("exported/model.pt2", NETWORK, WEIGHTS)]
    assert left == [not ours] * 3
    assert json.loads((best / "config.json").read_text()) == {"x": 2}


def test_an_export_leaves_no_model_file_of_another_winner(tmp_path):
    best = tmp_path / "best"

    def export(trial, model_path):
        row = {"trial_id": trial, "folder": str(tmp_path / trial), "config": {}}
        result = {"best": {**row, "model_path": model_path}, "verdict": "better."}
        take_home(tmp_path / "V001", result, best)

    for name in ("a/output/old.pt", "b/output/saved/x", "c/output/saved/y"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    export("a", "old.pt")
    (best / "own.txt").write_text("the user's")
    export("b", "saved")
    assert not (best / "old.pt").exists()
    export("c", "saved")
    assert [path.name for path in (best / "saved").iterdir()] == ["y"]
    # it lies outside the trial, so it was not copied here
    export("d", str(tmp_path / "own.txt"))
    assert not (best / "saved").exists()
    export("d", None)
    assert (best / "own.txt").exists()


def test_an_export_writes_over_no_file_of_ones_own(tmp_path):
    project, trial = tmp_path / "project", tmp_path / "trial"
    (trial / "output").mkdir(parents=True)
    (trial / "output" / "model.pt").write_text("the winner's")
    row = {"trial_id": "a", "folder": str(trial), "config": {}, "model_path": "model.pt"}

    def export():
        take_home(tmp_path / "V001", {"best": row, "verdict": "better."}, project)

    project.mkdir()
    for name in ("README.md", "model.pt"):
        (project / name).write_text("the user's")
        with pytest.raises(ConfigError, match=rf"holds {name} already.*--export"):
            export()
        assert {path.name: path.read_text() for path in project.iterdir()} == {name: "the user's"}
        (project / name).unlink()
    # what an export has written, the next one writes anew
    export()
    export()
    assert (project / "model.pt").read_text() == "the winner's"


@pytest.mark.parametrize("same", [True, False])
def test_a_module_of_another_folder_is_not_taken_for_the_winner_s(tmp_path, same):
    source = """
from torch import nn
from darts_core import autosearch

@autosearch.network
def build():
    return nn.Sequential(nn.Linear(2, 3), nn.ACTIVATION())
"""
    description = {"builder": "built_twice:build", "arguments": [], "config": {}}
    for name, activation in (("first", "ReLU"), ("second", "ReLU" if same else "Tanh")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "built_twice.py").write_text(source.replace("ACTIVATION", activation))
        (folder / NETWORK).write_text(json.dumps(description))
        torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict(), folder / WEIGHTS)
    try:
        assert isinstance(
            autosearch.load(tmp_path / "first", code=tmp_path / "first")[1], torch.nn.ReLU
        )
        if same:
            autosearch.load(tmp_path / "second", code=tmp_path / "second")
        else:
            with pytest.raises(ConfigError, match=r"first.built_twice\.py already, and .*second"):
                autosearch.load(tmp_path / "second", code=tmp_path / "second")
    finally:
        sys.modules.pop("built_twice", None)


def test_a_network_is_let_go_when_the_next_one_is_built(monkeypatch):
    monkeypatch.setattr(contract, "_current", contract.Trial())
    build = autosearch.network(lambda width: torch.nn.Linear(width, 1))
    build(2)
    second = build(3)
    assert [kept.model for kept in contract.current().networks] == [second]


BUILT_OTHERWISE = """
import torch
from torch import nn
from darts_core import autosearch
from darts_core.supernet.choices import WidthChoice

class Net(nn.Module):
    def __init__(self, activation="relu"):
        super().__init__()
        act = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]()
        self.body = nn.Sequential(nn.Linear(4, 8), act, WidthChoice([2, 8], label="width"), nn.Linear(8, 3))
    def forward(self, x):
        return {"logits": self.body(x)}

def train():
    model = autosearch.searchable(Net("tanh"), (4,))
    print("output", model(torch.ones(1, 4))["logits"].tolist())
    autosearch.report(0.5)
"""


def test_a_winner_built_again_as_another_network_that_takes_its_weights_is_refused(shop, tmp_path):
    """Made with other arguments it was loaded, and exported, with another activation."""
    workshop, row, output = trial_of(shop, BUILT_OTHERWISE, {"architecture": '{"width": 2}'})
    best = taken(workshop, row, tmp_path)
    assert len(json.loads((best / NETWORK).read_text())["answers"]) == 6
    assert "computes something else than the trial's" in (best / "README.md").read_text()
    code = f"""
        import sys, torch
        from darts_core import autosearch
        from darts_core.errors import ConfigError
        sys.path.insert(0, {str(tmp_path / "code")!r})
        import boot
        try:
            autosearch.load({str(best)!r}, code={str(tmp_path / "code")!r})
        except ConfigError as error:
            print(error)
        def make(): return autosearch.searchable(boot.Net("tanh"), (4,))
        print(autosearch.load({str(best)!r}, make)(torch.ones(1, 4))["logits"].tolist())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    said, again = done.stdout.splitlines()
    assert "load(folder, build=make_model)" in said
    assert torch.allclose(torch.tensor(json.loads(again)), torch.tensor(output), atol=1e-6)
