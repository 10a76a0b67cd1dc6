"""What a policy search does with the settings of a study over the recipe, and whom it tells."""

from __future__ import annotations

import csv
import pickle
import re
import sys
from types import SimpleNamespace

import pytest

from darts_core.errors import ConfigError, TuneError
from darts_core.runlog import RunFolder
from darts_core.settings import TrainConfig, from_plain
from darts_core.stages import policy as module
from darts_core.stages.policy import search_augmentation
from darts_core.stages.schema import TuneStage
from darts_core.study.augment_density import density_search
from darts_core.study.budget import Budget, Spent
from darts_core.study.resources import device_of


def stage(tune=None, **more):
    node = {"policy": "gradient", "epochs": 1, **(tune or {})}
    return from_plain(TuneStage, {"device": "cpu", "tune": node, **more})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"enqueue": [{"learning_rate": 0.1}]}, "tune.enqueue"),
        ({"warm_start": "runs/a/V001/tune"}, "tune.warm_start"),
        ({"workers": 2}, "tune.workers"),
        ({"sampler": "random"}, "tune.sampler"),
        ({"workers": 2, "sampler": "random"}, "tune.workers, tune.sampler"),
    ],
)
def test_what_a_study_over_the_recipe_reads_alone_is_refused(tmp_path, given, name):
    folder = tmp_path / "policy"
    with pytest.raises(ConfigError, match=rf"does not read {re.escape(name)}: that is for"):
        search_augmentation(stage(given), folder)
    assert not folder.exists()


def test_callbacks_are_refused(tmp_path):
    nodes = {"early_stopping": {"_target_": "darts_core.callbacks.EarlyStopping"}}
    with pytest.raises(ConfigError, match="does not read callbacks=early_stopping"):
        search_augmentation(stage(callbacks=nodes), tmp_path / "policy")


def test_density_takes_workers_and_a_sampler():
    density = {"policy": "density", "epochs": None, "workers": 2, "sampler": "random"}
    module._refuse_unread(stage(density), "density")
    enqueued = stage({**density, "enqueue": [{"learning_rate": 0.1}]})
    with pytest.raises(ConfigError, match=r"tune\.policy=density .* does not read tune\.enqueue"):
        module._refuse_unread(enqueued, "density")


def test_what_an_experiment_sets_is_named_and_passed_over(caplog):
    """`experiment=demo` has a space and a pruner of its own, and the data to search on."""
    space = {"learning_rate": {"low": 0.1, "high": 0.2}}
    module._refuse_unread(stage({"space": space, "pruner": "none"}), "gradient")
    assert "does not read tune.space, tune.pruner" in caplog.text


def test_a_search_that_an_older_program_began_is_not_refused(tmp_path):
    config, folder = stage({"workers": 2}), tmp_path / "policy"
    RunFolder.create(folder, config.described(), tensorboard=False).finish(method="gradient")
    assert search_augmentation(config, folder)["method"] == "gradient"


def searched(tmp_path, monkeypatch, config):
    """What `search_policy` is called with, where nothing is read or trained."""
    bundle = SimpleNamespace(
        kind="image",
        unit=255,
        image_shape=(3, 8, 8),
        task=SimpleNamespace(name="classification"),
        without_test=lambda: bundle,
    )
    found = SimpleNamespace(
        spent=Spent(0, 2, 1.0),
        path=tmp_path / "policy" / "policy.yaml",
        history=[{"epoch": n + 1, "loss": loss, "more": {}} for n, loss in enumerate((0.5, 0.25))],
        to_dict=lambda: {"method": "gradient"},
    )
    for name, stand_in in (
        ("load_bundle", bundle),
        ("find_network", SimpleNamespace(make=lambda: None)),
        ("recipe", TrainConfig(epochs=2)),
        ("bilevel_objective", None),
        ("density_objective", len),
    ):
        monkeypatch.setattr(module, name, lambda *_, _made=stand_in, **__: _made)
    given = []
    monkeypatch.setattr(module, "search_policy", lambda *a, **_: given.extend(a) or found)
    search_augmentation(config, tmp_path / "policy")
    return given


def test_loggers_are_told_each_epoch(tmp_path, monkeypatch, caplog):
    logger = {"csv": {"_target_": "darts_core.loggers.Csv"}}
    weighed = {"name": "classification", "class_weights": "balanced"}
    searched(tmp_path, monkeypatch, stage(logger=logger, task=weighed))
    assert "task.class_weights=balanced: a policy is judged by a loss that counts" in caplog.text
    with (tmp_path / "policy" / "metrics.csv").open(newline="") as stream:
        rows = [(row["epoch"], row["loss"]) for row in csv.DictReader(stream)]
    assert rows == [("0", "0.5"), ("1", "0.25")]


def test_a_worker_of_a_density_search_imports_the_users_modules(tmp_path, monkeypatch):
    """It is a fresh process, in which their augmentation operations are not registered yet."""
    (tmp_path / "own_gammas.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    config = stage({"policy": "density", "epochs": None}, plugins=["own_gammas"])
    (objective,) = searched(tmp_path, monkeypatch, config)
    assert device_of(objective) == config.device
    packed = pickle.dumps(objective)
    assert "own_gammas" not in sys.modules
    assert pickle.loads(packed)("ab") == 2
    assert sys.modules.pop("own_gammas").__file__ == str(tmp_path / "own_gammas.py")


def test_a_gpu_that_is_named_is_that_of_all_workers_of_a_density_search(tmp_path, monkeypatch):
    """Its networks and images lie there: a worker that is shown another one alone could not unpack them."""

    def begun(trial, *_, **__):
        raise TuneError(device_of(pickle.loads(pickle.dumps(trial))))

    monkeypatch.setattr("darts_core.study.study.run_study", begun)
    space = {"operations": ["invert"], "ranges": {}, "length": 1, "seed": 0}
    for objective, device in ((module._WithPlugins(len, (), "cuda:1"), "cuda:1"), (len, "auto")):
        with pytest.raises(TuneError, match=f"^{device}$"):
            density_search(objective, tmp_path, Budget(trials=1), space)
