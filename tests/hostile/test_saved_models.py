"""Doctored model files and checkpoints end in a sentence; nothing absurd is allocated."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from darts_core import autosearch
from darts_core.architecture import Architecture
from darts_core.autosearch.backbones import ResNet18
from darts_core.autosearch.networks import NETWORK, WEIGHTS
from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.errors import ArchitectureError, ConfigError, DartsError, ExportError, ResumeError
from darts_core.export.archive import load_program
from darts_core.models.baselines import baseline
from darts_core.supernet import build
from darts_core.train.save import load_model, save_model

NODE = {"name": "resnet8", "num_classes": 3, "in_channels": 1, "width": 4}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, baseline(**NODE), {"baseline": NODE})
    return load_checkpoint(path)


def written(content, tmp_path, keys, value, drop=False):
    """`content` with the value at a path of keys changed, in a file."""

    def changed(item, keys):
        if not keys:
            return value
        result = dict(item)
        if drop and len(keys) == 1:
            del result[keys[0]]
        else:
            result[keys[0]] = changed(item.get(keys[0], {}), keys[1:])
        return result

    path = tmp_path / "model.pt"
    torch.save(changed(content, keys), path)
    return path


CHANGES = [
    (["meta"], None), (["meta"], 5), (["meta"], []), (["state"], None), (["state"], {}),
    (["state"], [torch.zeros(1)]), (["state", "more"], 5), (["kind"], "search"), (["kind"], None),
    (["meta", "baseline"], None), (["meta", "baseline"], []), (["meta", "baseline"], "resnet8"),
    (["meta", "baseline", "depth"], 3), (["meta", "baseline", "name"], "resnet9"),
    (["meta", "baseline", "name"], 5), (["meta", "baseline", "num_classes"], -1),
    (["meta", "baseline", "num_classes"], 0), (["meta", "baseline", "num_classes"], "many"),
    (["meta", "baseline", "num_classes"], 10**12), (["meta", "baseline", "width"], -4),
    (["meta", "baseline", "width"], 99_999), (["meta", "baseline", "width"], 1.5),
    (["meta", "baseline", "in_channels"], 10**9), (["meta", "replaced"], [1]),
    (["meta", "replaced"], {"no.such": "none"}), (["meta", "replaced"], {"features.0": "bomb"}),
    (["meta", "replaced"], {5: "none"}), (["schema_version"], True), (["schema_version"], "1"),
    (["schema_version"], 99),
]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "value"), CHANGES, ids=[f"{c[0]}-{str(c[1])[:20]}" for c in CHANGES]
)
def test_a_doctored_model_is_a_sentence(content, tmp_path, keys, value):
    path = written(content, tmp_path, keys, value)
    with pytest.raises(DartsError) as error:
        load_model(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3).to_sparse(), torch.zeros(1, device="meta"), torch.zeros(1).expand(10**12),
        torch.as_strided(torch.zeros(1), (10**6, 10**6), (0, 0)),
    ],
    ids=["sparse", "meta", "expanded", "strided"],
)  # fmt: skip
def test_a_tensor_whose_numbers_are_not_in_the_file_is_refused(content, tmp_path, value):
    """For that reason: one of a name that the network lacks would be refused as well, once it was copied."""
    with pytest.raises(
        ResumeError, match=r"'features\.0\.0\.weight' .* not stored as plain numbers"
    ):
        load_model(written(content, tmp_path, ["state", "features.0.0.weight"], value))


@pytest.mark.parametrize("keys", [["meta"], ["state"], ["kind"], ["meta", "baseline"],
                                  ["meta", "baseline", "name"], ["schema_version"]])  # fmt: skip
def test_a_missing_part_is_a_sentence(content, tmp_path, keys):
    path = written(content, tmp_path, keys, None, drop=True)
    with pytest.raises(ResumeError, match=r"model\.pt"):
        load_model(path)


ARCHITECTURES = [
    {"layers": 10**8}, {"layers": -1}, {"layers": 99_999}, {"channels": 10**9}, {"channels": 0},
    {"channels": "x"}, {"stem": "rock"}, {"stem": 5}, {"depth": 4}, {"image_size": -5},
    {"auxiliary": "yes", "image_size": 3}, {"layers": None}, {"num_classes": {}},
]  # fmt: skip


@pytest.mark.parametrize("change", ARCHITECTURES, ids=str)
def test_a_doctored_build_is_a_sentence(tmp_path, change):
    node = {"channels": 4, "layers": 2, "num_classes": 3, "in_channels": 1}
    found = Architecture.named("DARTS_V2")
    meta = {"architecture": found.to_dict(), "build": node}
    save_model(tmp_path / "model.pt", build(found, **node), meta)
    assert load_model(tmp_path / "model.pt")
    content = load_checkpoint(tmp_path / "model.pt")
    content["meta"]["build"] = {**node, **change}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DartsError):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "edge", [[0, 10**9, "skip_connect"], [0, 2, "no_such_op"], [-1, 2, "skip_connect"], [0, 2], 5]
)
def test_a_doctored_architecture_is_a_sentence(tmp_path, edge):
    found = Architecture.named("DARTS_V2")
    node = {"channels": 4, "layers": 2, "num_classes": 3, "in_channels": 1}
    described = found.to_dict()
    described["cells"]["normal"]["edges"][0] = edge
    meta = {"architecture": described, "build": node}
    save_model(tmp_path / "model.pt", build(found, **node), meta)
    with pytest.raises(DartsError):
        load_model(tmp_path / "model.pt")


class _Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_in_a_checkpoint_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    for name, write in (
        ("torch", lambda path: torch.save({"schema_version": 1, "x": _Runs(marker)}, path)),
        ("old", lambda path: torch.save(_Runs(marker), path, _use_new_zipfile_serialization=False)),
        ("plain", lambda path: path.write_bytes(pickle.dumps(_Runs(marker)))),
    ):
        path = tmp_path / name
        write(path)
        with pytest.raises(ResumeError, match="cannot be read"):
            load_checkpoint(path)
        assert not marker.exists()


def test_a_packed_member_is_refused_before_it_is_unfolded(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", {"x": torch.zeros(1000)})
    with zipfile.ZipFile(tmp_path / "a.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("was opened"))
    with pytest.raises(ResumeError, match="cannot be read"):
        load_checkpoint(tmp_path / "b.pt")
    # what a job's export holds, and what a backbone starts from
    (tmp_path / "b.pt").rename(tmp_path / WEIGHTS)
    (tmp_path / NETWORK).write_text("{}")
    with pytest.raises(ConfigError, match=r"no plain weights \(ValueError: the member .* is compr"):
        autosearch.load(tmp_path, build=lambda: torch.nn.Linear(1, 1))
    with pytest.raises(ArchitectureError, match="is compressed"):
        ResNet18("1-2", width=4, pretrained=tmp_path / WEIGHTS)
    # and a program: what is loaded is what was looked at, although the file is another one by then
    read, plain = Path.read_bytes, (tmp_path / "a.pt").read_bytes()
    monkeypatch.setattr(Path, "read_bytes", lambda p: (read(p), p.write_bytes(plain))[0])
    monkeypatch.setattr(torch._C, "PyTorchFileReader", lambda file: pytest.fail("was opened"))
    with pytest.raises(ExportError, match="no readable"):
        load_program(tmp_path / WEIGHTS)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", bytes(1000), b"\x80\x04N."])
def test_junk_is_a_sentence(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ResumeError, match=r"a\.pt"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_pipe_is_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(ResumeError, match="named pipe"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(ResumeError, match="device"):
        load_checkpoint("/dev/zero")
