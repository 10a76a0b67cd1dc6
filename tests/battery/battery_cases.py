"""Bad inputs by the thousand: each setting outside what it declares, each reader with hostile files.

A case is a command line with the files that it needs. The settings come from the dataclasses that the
commands read, the files from the corpus of `tests/hostile`: what is added there is tried here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hostile"))

from darts_core.settings.field import Bounds, Settings, bounds_of, type_of
from darts_core.stages.schema import STAGES

__all__ = ["Case", "all_cases"]

# `{}` is the case's own folder, {good} the folder of `good_files`
_DATA = ("data=digits", "data.limit=200", "data.test_limit=50")
_TRAIN = ("train.epochs=1", "train.channels=4", "train.layers=1", "train.batch_size=16")
BASES: Mapping[str, tuple[str, ...]] = {
    "search": (*_DATA, "space=nasbench201", "search.epochs=1",
    "search.finalists=1", "search.channels=4", "search.layers=1",
               "search.batch_size=16"),
    "train": (*_DATA, *_TRAIN, "architecture=resnet8"),
    "tune": (*_DATA, *_TRAIN, "architecture=resnet8", "tune.trials=1"),
    "shrink": (*_DATA, *_TRAIN, "model={good}/model.pt", "shrink.epochs=1", "shrink.points=2",
               "shrink.export=false", "shrink.options.looks=8", "shrink.options.seconds=0.05"),
    "prune": (*_DATA, *_TRAIN, "model={good}/model.pt", "prune.budget=90%"),
    "export": (*_DATA, "model={good}/model.pt", "export.formats=[onnx]"),
    "bench": (*_DATA, "model={good}/model.pt", "bench.seconds=0.05"),
    "report": (),
    "run": (*_DATA, *_TRAIN, "space=nasbench201", "aim=null", "search.epochs=1",
    "search.finalists=1", "search.channels=4",
            "search.layers=1", "search.batch_size=16", "tune.trials=1"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command with its files.

    Attributes:
        group: what the counts are kept by.
        name: unique.
        argv: the words of the command.
        files: content by path below the case's folder.
        refuse: whether it must be refused; otherwise done or refused, never a defect.
    """

    group: str
    name: str
    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    refuse: bool = True


def all_cases() -> list[Case]:
    """Every case, in a fixed order."""
    found = [*setting_cases(), *file_cases()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names)
    return found


def setting_cases() -> Iterator[Case]:
    """Each setting of each command with values outside of what it declares."""
    tried: set[str] = set()
    for command, stage in STAGES.items():
        for key, kind, bounds in _settings(stage):
            values = list(_wrong_values(kind, bounds))
            # a node that several commands share is tried in full once, then by one value a command
            values = values[-1:] if key in tried else values
            tried.add(key)
            for value in values:
                base = [word for word in BASES[command] if not word.startswith(f"{key}=")]
                yield Case(
                    f"settings of {command}", f"{command} {key}={value}",
                    (command, *base, f"++{key}={value}"),
                )  # fmt: skip


def _settings(cls: type[Settings]) -> Iterator[tuple[str, Any, Bounds]]:
    """(key, type, bounds) of each setting below a stage."""
    for item in fields(cls):  # type: ignore[arg-type]
        kind, _ = type_of(cls, item.name)
        if isinstance(kind, type) and issubclass(kind, Settings):
            yield from _below(item.name, kind)
        elif (bounds := bounds_of(item)) is not None:
            yield item.name, kind, bounds


def _below(prefix: str, cls: type[Settings]) -> Iterator[tuple[str, Any, Bounds]]:
    for key, kind, bounds in _settings(cls):
        yield f"{prefix}.{key}", kind, bounds


def _wrong_values(kind: Any, bounds: Bounds) -> Iterator[str]:
    origin = get_origin(kind) or kind
    if bounds.choices and origin is str:
        yield from ("nope", "''")
    elif origin in (int, float) or (origin in (list, tuple) and get_args(kind)[0] in (int, float)):
        inner = origin if origin in (int, float) else get_args(kind)[0]
        numbers = ["nan"]
        if bounds.low is not None:
            numbers.append(repr(inner(bounds.low) if bounds.low_open else inner(bounds.low) - 1))
        if bounds.high is not None:
            numbers.append(
                repr(inner(bounds.high) if bounds.high_open else inner(bounds.high) * 2 + 1)
            )
        numbers += ["1.5"] if inner is int else []
        words = [*numbers, "abc", "9" * 400]
        wrap = "[{}]" if origin in (list, tuple) else "{}"
        yield from (wrap.format(word) for word in words)
    elif origin is bool:
        yield "perhaps"


GOOD_MODEL = {"name": "resnet8", "num_classes": 10, "in_channels": 1, "width": 4}


def good_files(folder: Path) -> None:
    """The files that cases start from: a saved model."""
    from darts_core.train.baselines import baseline
    from darts_core.train.save import save_model

    folder.mkdir(parents=True, exist_ok=True)
    meta = {"baseline": GOOD_MODEL, "image_shape": [1, 8, 8], "mean": [0.3], "std": [0.4],
            "class_names": [str(i) for i in range(10)]}  # fmt: skip
    save_model(folder / "model.pt", baseline(**GOOD_MODEL), meta)


def file_cases() -> Iterator[Case]:
    """Each command that reads a file, with each hostile content of that kind of file."""
    from fuzz_targets import TARGETS
    from hostile_corpus import GENOTYPES, IDX, NPZ, PICKLES, TEXTS

    train, export = BASES["train"], BASES["export"]
    no_data = [*_TRAIN, "architecture=resnet8"]
    stored = _job_files()
    for number, (name, content) in enumerate(TEXTS.items()):
        for what, argv, path in (
            ("architecture file", ["train", *train[:-1], "architecture={}/a.yaml"], "a.yaml"),
            ("policy file", ["train", *train, "augment=found", "augment.path={}/p.yaml"], "p.yaml"),
            ("latency table", ["latency", "show", "table={}/t.json"], "t.json"),
            ("manifest", ["predict", "--model", "{}", "{}/a.png"], "manifest.json"),
            ("manifest of serve-bench", ["serve-bench", "{}"], "manifest.json"),
            ("job file", ["jobs", "create", "--name", "a", "--dry-run", "--code", "{}", "--boot-file",
                          "boot.py", "--config", "{}/j.yaml"], "j.yaml"),
            ("model as text", ["export", *export[:-2], "model={}/model.pt"], "model.pt"),
        ):  # fmt: skip
            files = {path: content, "boot.py": b"def train():\n    pass\n"}
            yield Case(what, f"{what}: {name}", tuple(argv), files)
        group = {"conf/strategy/mine.yaml": content}
        argv = ("search", "--config-dir", "{}/conf", "strategy=mine", *BASES["search"])
        yield Case("file of --config-dir", f"config-dir: {name}", argv, group)
        for what, argv, path in (
            ()
            if number % 3
            else (
                ("log", ("jobs", "suggest", "{}/log.txt"), "log.txt"),
                ("record", ("jobs", "list"), "runs/a/V001/version.json"),
                ("result", ("report", "job=a"), "runs/a/V001/search/result.json"),
                ("metrics", ("report", "job=a"), "runs/a/V001/search/metrics.jsonl"),
                (
                    "listed group",
                    ("list", "strategies", "--config-dir", "{}/conf"),
                    "conf/strategy/m.yaml",
                ),
            )
        ):
            files = {**(stored if path.startswith("runs/") else {}), path: content}
            yield Case(what, f"{what}: {name}", argv, files, refuse=False)
        if not number % 3 and b"\0" not in content and len(content) < 100_000:
            text = content.decode("utf-8", "surrogateescape")
            argv = ("jobs", "create", "--name", "a", "--dry-run", "--set", f"general.seed={text}")
            yield Case("setting", f"setting: {name}", argv, refuse=False)
    for name, text in GENOTYPES.items():
        if "\0" not in text and len(text) < 100_000:  # what no command line can hold
            quoted = text.replace("\\", "\\\\").replace("'", "\\'")
            argv = ("train", *train[:-1], f"architecture='{quoted}'")
            yield Case("architecture text", f"text: {name}", argv)
    for name, content in IDX.items():
        files = {f"{part}-{kind}": content for part in ("train", "t10k")
                 for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")}  # fmt: skip
        argv = ("train", "data=mnist", "data.path={}", *no_data)
        yield Case("idx", f"idx: {name}", argv, files)
    for name, content in NPZ.items():
        argv = ("train", "data=npz", "data.path={}/a.npz", *no_data)
        yield Case("npz", f"npz: {name}", argv, {"a.npz": content})
    for name, content in PICKLES.items():
        argv = ("train", "data=cifar10", "data.path={}", *no_data)
        yield Case("pickle", f"pickle: {name}", argv, {"data_batch_1": content})
        argv = ("prune", *BASES["prune"][:-2], "model={}/model.pt", "prune.budget=90%")
        yield Case("model", f"model: {name}", argv, {"model.pt": content})
    yield from _image_cases(no_data)
    form = json.loads(TARGETS["manifest"]().seeds[0])
    for path, value in _one_part_wrong(form):
        files = {"manifest.json": json.dumps(value).encode(), "m.onnx": b"none"}
        argv = ("predict", "--model", "{}", "{}/a.png")
        yield Case("part of a manifest", f"manifest without {path}", argv, files)


def _job_files() -> dict[str, bytes]:
    """A job `a` with a version, without which no command looks at the files of its stages."""
    from darts_core.store.record import PIPELINE, new_record, write_job, write_record

    with tempfile.TemporaryDirectory() as root:
        job = Path(root, "runs", "a")
        job.joinpath("V001").mkdir(parents=True)
        write_job(job, PIPELINE, created=0.0, description="")
        write_record(
            job / "V001", new_record(PIPELINE, commands={"search": {"state": "succeeded"}})
        )
        found = [path for path in job.rglob("*.json") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}


def _image_cases(no_data: list[str]) -> Iterator[Case]:
    from test_images import READ, REFUSED

    for name, content in REFUSED.items():
        files = {f"{kind}/{i}.png": READ["png"] for kind in ("a", "b") for i in range(12)}
        files["a/bad.png"] = content
        argv = ("train", "data=image_folder", "data.path={}", "data.image_size=9", *no_data)
        yield Case("image", f"image: {name}", argv, files)


def _one_part_wrong(form: Any) -> Iterator[tuple[str, Any]]:
    """`form` with each of its parts replaced by a value of another type."""
    from test_fuzz import places, replaced

    for path in places(form):
        name = ".".join(map(str, path))
        for value in (None, -1, {"a": [1]}):
            if not (name.endswith("chunk") and value is None) and not name.endswith("latency"):
                yield f"{name}={value!a}", replaced(form, path, value)
