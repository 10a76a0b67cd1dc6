"""The commands whose writes are made to fail, each in small, and what they leave, without times."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writes import Ended, Fault, forked, is_a_sentence

_DATA = ("data=digits", "data.limit=64", "data.test_limit=32", "device=cpu")
_NET = (
    "architecture='|skip_connect~0|+|nor_conv_3x3~0|skip_connect~1|"
    "+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|'"
)
_SEARCH = (
    "search.epochs=2",
    "search.finalists=1",
    "search.channels=2",
    "search.layers=1",
    "search.batch_size=16",
)
_TRAIN = ("train.epochs=2", "train.channels=2", "train.layers=1", "train.batch_size=16")
# batches that the 54 images hold
_TUNE = ("tune.trials=2", "tune.epochs=4", "tune.space.batch_size.choices=[16,32]")
_PRUNE = ("prune.epochs=1", "prune.budget=90%", "prune.options.runtime=eager")
_SECONDS = ("prune.options.seconds=0.01", "export.options.max_seconds=0.01", "bench.seconds=0.01")
_SMALL = (
    "export.formats=[onnx]", "bench.options.seeds=1", "bench.baseline_width=4", "allow_doubtful=true",
)  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "search": ("search", *_DATA, "space=nasbench201", *_SEARCH),
    "train": ("train", *_DATA, _NET, *_TRAIN),
    "tune": ("tune", *_DATA, _NET, *_TRAIN, *_TUNE),
    "prune": ("prune", *_DATA, *_PRUNE, "train.batch_size=16", _SECONDS[0]),
    "export": ("export", *_DATA, _SECONDS[1]),
    "run": (
        "run",
        *_DATA,
        "space=nasbench201",
        "aim=null",
        *_SEARCH,
        *_TRAIN,
        *_TUNE,
        *_PRUNE,
        *_SECONDS,
        *_SMALL,
    ),
}
_CODE = """
from darts_core import autosearch

def train():
    x = autosearch.config["x"]
    for step in range(2):
        autosearch.reporter(accuracy=x * step)
    open(autosearch.output_dir + "/m.bin", "w").write(str(x))
    autosearch.report(x, model_path="m.bin")
"""
_JOB = """
general: {confirm_seeds: 1}
search_space:
  - params:
      - {type: discrete_param, name: x, values: [0.1, 0.3], default: 0.1}
search_algorithm: {type: grid_search, reward_attr: accuracy, mode: max}
"""
NAMES = (*COMMANDS, "job")
# what has to be there before
_AFTER = {"prune": "train", "export": "train"}
_TIMES = re.compile(
    r"time|seconds|_ms$|^ms$|latency|started|ended|changed|created|process|mark|hash|folder|path|"
    r"^commit$|sha|spread|bytes|peak|^pid$|^attempts?$|^trainings$|relative_error|^n$|^before$|^after$|^flag|load|arguments|environment|directory"
)
_NOT_COMPARED = re.compile(
    r"tensorboard/|log\.txt$|\.lock$|\.locks/|environment\.json$|forecast\.json$|\.html$|\.png$|"
    r"\.hash$|\.onnx$|\.pt2$|\.csv$|\.md$"
)


def ready() -> None:
    """Import what the commands use, so that a forked child need not."""
    import torch

    torch.set_num_threads(1)
    for name in (
        "darts_core.cli", "darts_core.commands.hydra_app", "darts_core.stages.pipeline",
        "darts_core.stages.search", "darts_core.stages.train", "darts_core.stages.tune",
        "darts_core.stages.prune", "darts_core.autosearch.engine",
        "darts_core.stages.export", "darts_core.stages.run",
        "torch.utils.tensorboard", "torch._dynamo", "torch.onnx", "onnx", "onnxscript", "onnxruntime",
        "optuna", "torch_pruning", "matplotlib.pyplot", "filelock", "sklearn.datasets", "kornia",
    ):  # fmt: skip
        importlib.import_module(name)
    steady_times()
    # a lease is renewed by the clock, too: on a busy machine one run had more writes of it than the next
    importlib.import_module("darts_core.study.claim").BEAT_SECONDS = 3600.0


def steady_times() -> None:
    """Let what is timed depend on what it computes alone: two runs then prune and compare alike."""
    from torch.utils.flop_counter import FlopCounterMode

    # the package has a function of the module's name
    timer: Any = importlib.import_module("darts_core.latency.measure")
    known: dict[int, tuple[Callable[[], object], float]] = {}

    def sample(fn: Callable[[], object], calls: int, **_: object) -> float:
        if id(fn) not in known:
            with FlopCounterMode(display=False) as counted:
                fn()
            # kept with its function, so that no other one gets its number
            known[id(fn)] = (fn, 0.05 + counted.get_total_flops() / 1e7)
        return known[id(fn)][1]

    for module in (timer, importlib.import_module("darts_core.latency.samples")):
        module.cpu_sample = sample
    for module in (timer, importlib.import_module("darts_core.latency.rows")):
        module.FOREIGN_CORES = float("inf")


def created_job(root: Path) -> int:
    """A user's job, made and not started."""
    from darts_core.autosearch.request import Request, create
    from darts_core.store.jobs import Store

    code = root.parent / "code"
    code.mkdir()
    (code / "boot.py").write_text(_CODE)
    (code / "job.yaml").write_text(_JOB)
    store = Store(root)
    store.create_job("j", kind="script")
    paths = (str(code / "job.yaml"),)
    create(store, "j", Request(code=str(code), boot_file="boot.py", config_paths=paths))
    return 0


def darts(name: str, root: Path) -> Callable[[], int]:
    """The command as a function of a forked child; its results go below `root`."""

    def run() -> int:
        from darts_core import cli
        from darts_core.autosearch.__main__ import main as engine

        if name == "job":
            return engine(["run", str(root), "j", "V001"])
        version = ["version=V001"] if name in _AFTER else []
        return cli.main([*COMMANDS[name], f"out={root}", "job=j", *version])

    return run


@dataclass
class Case:
    """One command in a folder of its own, with what an undisturbed one leaves."""

    name: str
    place: Path
    sound: Ended
    left: dict[str, Any]

    @classmethod
    def recorded(cls, name: str, place: Path) -> Case:
        """Run it once undisturbed, counting its writes."""
        start = place / "start"
        start.mkdir(parents=True)
        before = _AFTER.get(name)
        if name == "job":
            created_job(start / "runs")
        if before is not None:
            ended = forked(darts(before, start / "runs"), start / "runs")
            assert ended.status == 0, ended.text
        # the place of the disturbed ones too, as results name it
        root = _copy(start, place / "case")
        sound = forked(darts(name, root), root)
        assert sound.status == 0, sound.text
        left = what_is_left(root)
        shutil.rmtree(root.parent)
        return cls(name, place, sound, left)

    def trial(self, fault: Fault) -> str:
        """The command under `fault`, then again: an empty text, or what was wrong."""
        root = _copy(self.place / "start", self.place / "case")
        disturbed = forked(darts(self.name, root), root, fault)
        wrong, told = "", ((1, 2) if self.name == "job" else (2,))
        if not disturbed.happened:
            wrong = "the fault never happened"
        elif fault.kind == "kill":
            # a worker that is killed alone does not end the command
            if disturbed.status not in (0, -9) and not is_a_sentence(disturbed.text):
                wrong = f"status {disturbed.status}: {disturbed.text[-1500:]}"
        elif disturbed.status not in (0, *told) or "Traceback" in disturbed.text:
            wrong = f"status {disturbed.status}: {disturbed.text[-1500:]}"
        elif disturbed.status != 0 and not is_a_sentence(disturbed.text):
            wrong = f"no sentence: {disturbed.text[-1500:]}"
        elif disturbed.status == 0:
            wrong = different(self.left, what_is_left(root))
        again = forked(darts(self.name, root), root)
        if again.status != 0:
            wrong += f"\nagain: status {again.status}: {again.text[-1500:]}"
        else:
            found = different(self.left, what_is_left(root))
            wrong += found and f"{found}\n{again.text[-1500:]}"
        shutil.rmtree(root.parent)
        return wrong


def _copy(start: Path, place: Path) -> Path:
    shutil.copytree(start, place)
    return place / "runs"


def what_is_left(root: Path) -> dict[str, Any]:
    """Every file below `root` by its place: values without times, weights by their bits."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        found[name] = None if _NOT_COMPARED.search(name) else _content(path)
    # a list works the summary out again where it is missing; resources are looked at once a second; what an
    # interrupted sitting of a trial reported stays beside that of the next
    beside = re.compile(
        r"/(summary\.json|resources\.jsonl|(reports|result)\.\d+\.jsonl?)$|tensorboard/"
    )
    return {name: content for name, content in found.items() if not beside.search(name)}


def _line(text: str) -> Any:
    try:
        return _plain(json.loads(text))
    except ValueError:
        return f"a torn line: {text}"


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        import torch

        return _bits(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix == ".jsonl":
        return [_line(line) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return _plain(json.loads(path.read_text()))
    if path.suffix == ".yaml":
        # paths are those of the folder
        return re.sub(r"^(out|.*path|.*folder): .*$", "", path.read_text(), flags=re.M)
    return None


def _bits(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()[:16]
    if isinstance(value, dict):
        return {str(k): _bits(v) for k, v in value.items() if not _TIMES.search(str(k))}
    if isinstance(value, (list, tuple)):
        return [_bits(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not _TIMES.search(str(k))}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def different(one: Any, other: Any, place: str = "") -> str:
    """Where two results differ first; empty where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            if key not in one or key not in other:
                return f"\n{place}/{key}: only in the {'first' if key in one else 'second'}"
            found = different(one[key], other[key], f"{place}/{key}")
            if found:
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        each = (different(a, b, f"{place}[{i}]") for i, (a, b) in pairs)
        return next(filter(None, each), "")
    same = one == other or (one != one and other != other)
    return "" if same else f"\n{place}: {str(one)[:200]} is not {str(other)[:200]}"
