"""What the settings of a sweep come to: the sweeper's own, the app's node `tune`, where the trials run."""

from __future__ import annotations

import logging
from dataclasses import asdict

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from darts_core.errors import TuneError
from darts_core.runlog import write_json
from darts_core.settings import Tune, to_plain
from darts_core.study.resources import device_of
from darts_core.study.space import parse_space
from hydra_plugins.darts_ray_launcher._config import RAY_TARGET
from hydra_plugins.darts_slurm_launcher._config import SLURM_TARGET
from hydra_plugins.darts_sweeper._config import DartsSweeperConfig
from hydra_plugins.darts_sweeper._described import describe
from hydra_plugins.darts_sweeper._overrides import joined, split
from hydra_plugins.darts_sweeper._sweep import _as_begun, _defaults, _settings, _spec, _yaml_space
from hydra_plugins.darts_sweeper._trial import HydraTrial

SPACE = {"train.momentum": {"low": 0.0, "high": 0.95}}
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher."


def settings(folder, tune=None, target=BASIC, typed=(), **own):
    """Those of a sweep of our own command, whose node `tune` holds `tune`."""
    given = {**asdict(DartsSweeperConfig()), "folder": str(folder), **own}
    node = {
        "tune": {**to_plain(Tune()), **(tune or {})},
        "hydra": {"launcher": {"_target_": target}, "overrides": {"hydra": list(typed)}},
    }
    return _settings(given, OmegaConf.create(node))


def spec(plain, target=BASIC):
    launcher = {"launcher": {"_target_": target}}
    return _spec(
        plain, SPACE, OmegaConf.create({"hydra": launcher, "train": {"momentum": 0.9, "epochs": 3}})
    )


def test_options_of_the_usual_sampler_are_not_lost(tmp_path):
    chosen = {"name": "tpe", "n_startup_trials": 20, "multivariate": None, "description": "words"}
    assert settings(tmp_path, sampler=chosen)["sampler"] == {"name": "tpe", "n_startup_trials": 20}
    app = {"sampler": {"name": "tpe", "gamma": 0.2, "n_startup_trials": 5}}
    both = {"name": "tpe", "gamma": 0.2, "n_startup_trials": 20}
    assert settings(tmp_path, app, sampler=chosen)["sampler"] == both
    with pytest.raises(TuneError, match=r"an option of tpe, but tune\.sampler names gp"):
        settings(tmp_path, {"sampler": "gp"}, sampler=chosen)


@pytest.mark.parametrize(
    ("kind", "usual", "of_app"), [("sampler", "tpe", "gp"), ("pruner", "default", "none")]
)
def test_what_is_chosen_on_the_command_line_goes_before_what_the_app_names(
    tmp_path, kind, usual, of_app
):
    own, typed = {kind: {"name": usual}}, ["hydra/sweeper=darts", f"hydra/sweeper/{kind}={usual}"]
    assert settings(tmp_path, {kind: of_app}, typed=typed, **own)[kind] == {"name": usual}
    # the group's own default, of which nobody spoke, gives way
    assert settings(tmp_path, {kind: of_app}, typed=typed[:1], **own)[kind] == {"name": of_app}
    # as the sentence about options of another one advises
    more = {kind: {"name": usual, "n_startup_trials": 20}}
    assert settings(tmp_path, {kind: of_app}, typed=typed, **more)[kind] == more[kind]


@pytest.mark.parametrize(
    ("listed", "sampler", "pruner"),
    [
        ("", "gp", "none"),
        ("- override hydra/sweeper/sampler: tpe", "tpe", "none"),
        ("- override hydra/sweeper/pruner: default", "gp", "default"),
        ("- more: usual", "tpe", "none"),
    ],
)
def test_what_a_defaults_list_chooses_goes_before_what_the_app_names(
    tmp_path, listed, sampler, pruner
):
    (tmp_path / "more").mkdir()
    usual = "# @package _global_\ndefaults:\n  - override /hydra/sweeper/sampler: tpe\n"
    (tmp_path / "more/usual.yaml").write_text(usual)
    (tmp_path / "app.yaml").write_text(
        f"defaults:\n  - _self_\n  {listed}\n  - override hydra/sweeper: darts\n"
        "tune: {sampler: gp, pruner: none, trials: 3}\nx: 1\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("app", ["x=1,2"], RunMode.MULTIRUN)
        found = _settings(config.hydra.sweeper, config, loader)
    assert (found["sampler"]["name"], found["pruner"]["name"]) == (sampler, pruner)


def test_what_the_apps_options_say_of_the_study_counts(tmp_path):
    options = {
        "metric": "val_perplexity", "direction": "minimize", "max_failure_share": 0.1, "max_restarts": 7,
        "stale_seconds": 9.0,
    }  # fmt: skip
    made = spec(settings(tmp_path, {"options": options}))
    assert made.objectives == {"val_perplexity": "minimize"}
    assert (made.max_failure_share, made.max_restarts, made.stale_seconds) == (0.1, 7, 9.0)
    # the sweeper's own settings go first
    own = {"metric": "val_r2", "direction": "maximize", "max_restarts": 2}
    made = spec(settings(tmp_path, {"options": options}, **own))
    assert made.objectives == {"val_r2": "maximize"}
    assert (made.max_failure_share, made.max_restarts) == (0.1, 2)
    usual = spec(settings(tmp_path))
    assert usual.objectives == {"val_accuracy": "maximize"}
    assert (usual.max_failure_share, usual.max_restarts, usual.stale_seconds) == (0.5, 3, 60.0)


def test_which_way_is_better_is_not_guessed_where_the_name_says_otherwise(tmp_path):
    with pytest.raises(TuneError, match="val_perplexity, and nothing says which way is better"):
        settings(tmp_path, metric="val_perplexity")
    several = {"val_loss": "minimize", "params": "minimize"}
    assert spec(settings(tmp_path, metric="val_loss", objectives=several)).objectives == several


def test_the_apps_direction_belongs_to_the_apps_metric(tmp_path):
    def goals(options, **own):
        return spec(settings(tmp_path, {"options": options}, **own)).objectives

    loss = {"metric": "val_loss", "direction": "minimize"}
    assert goals(loss) == {"val_loss": "minimize"}
    assert goals(loss, metric="val_loss") == {"val_loss": "minimize"}
    assert goals(loss, metric="val_accuracy") == {"val_accuracy": "maximize"}
    several = {"objectives": {"val_loss": "minimize", "params": "minimize"}}
    assert goals(several) == several["objectives"]
    assert goals(several, metric="val_accuracy") == {"val_accuracy": "maximize"}
    # of an app that returns one number and names none
    assert goals({"direction": "minimize"}) == {"val_accuracy": "minimize"}


@pytest.mark.parametrize("sampler", ["acquisition", "anneal", "evolution", "cmaes"])
def test_a_sampler_of_one_objective_is_refused_for_two_before_a_trial_runs(tmp_path, sampler):
    two = {"val_accuracy": "maximize", "params": "minimize"}
    words = f"'{sampler}' takes one objective, but the study has 2; use tpe, gp, .*nsga2 or nsga3"
    with pytest.raises(TuneError, match=words):
        spec(settings(tmp_path, sampler=sampler, objectives=two))
    assert spec(settings(tmp_path, sampler=sampler)).sampler["name"] == sampler
    assert spec(settings(tmp_path, sampler="nsga2", objectives=two)).objectives == two


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_cluster_of_the_stage_is_refused_with_the_launcher_to_take(tmp_path, name):
    with pytest.raises(TuneError, match=f"give hydra/launcher={name}"):
        settings(tmp_path, {"options": {name: {}}})


def test_what_no_trial_would_read_and_no_workers_are_refused(tmp_path):
    with pytest.raises(TuneError, match=r"tune\.policy=density .* Search it without -m"):
        settings(tmp_path, {"policy": "density"})
    with pytest.raises(TuneError, match=r"hydra\.sweeper\.workers=0 must be at least 1"):
        settings(tmp_path, workers=0)
    assert settings(tmp_path)["workers"] == 1
    assert settings(tmp_path, {"workers": 3})["workers"] == 3


@pytest.mark.parametrize("name", ["ray", "slurm"])
@pytest.mark.parametrize("target", [RAY_TARGET, SLURM_TARGET, JOBLIB])
def test_with_a_launcher_a_cluster_of_the_stage_is_said_not_to_count(
    tmp_path, caplog, name, target
):
    with caplog.at_level(logging.INFO, logger="darts_core"):
        plain = settings(tmp_path, {"options": {name: {}}}, target)
    assert name not in plain
    assert f"({target}); tune.options.{name} does not count" in caplog.text


@pytest.mark.parametrize(
    ("target", "share"),
    [
        (BASIC, 0.125),
        (JOBLIB, 0.125),
        (f"{SUBMITIT}LocalLauncher", 0.125),
        (f"{SUBMITIT}SlurmLauncher", 1.0),
        (SLURM_TARGET, 1.0),
        (RAY_TARGET, 1.0),
    ],
)
def test_only_trials_of_this_machine_share_its_devices(tmp_path, monkeypatch, target, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert spec(settings(tmp_path, {"workers": 8}), target).device_share == share


@pytest.mark.parametrize("given", [{"train.momentum": 0.5}, ["train.momentum"]])
def test_settings_to_be_tried_that_are_no_list_of_settings_are_refused(tmp_path, given):
    with pytest.raises(TuneError, match="give a list of settings"):
        spec(settings(tmp_path, enqueue=given))


def test_a_sampler_of_the_app_that_is_no_name_is_refused(tmp_path):
    with pytest.raises(TuneError, match=r"sampler is \['gp'\]; give a name"):
        settings(tmp_path, {"sampler": ["gp"]})


def test_a_sweep_knows_the_device_that_its_app_names():
    for node, device in (
        ({"device": "cuda:1"}, "cuda:1"),
        ({"device": None}, "auto"),
        ({"device": "cuda:${hydra:job.num}"}, "auto"),
        ({}, "auto"),
    ):
        trial = HydraTrial.pack(len, OmegaConf.create(node), None, [], ("loss",))
        assert device_of(trial) == device


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("range(0.2,0.6,0.1)", [0.2, 0.3, 0.4, 0.5]),
        ("range(0.6,0.2,-0.1)", [0.3, 0.4, 0.5, 0.6]),
        ("range(0,1,0.25)", [0.0, 0.25, 0.5, 0.75]),
        ("range(1,9,3)", [1, 4, 7]),
    ],
)
def test_every_point_of_a_range_can_be_drawn(text, points):
    _, space = split([f"train.momentum={text}"])
    (dimension,) = parse_space(space).values()
    assert [round(value, 12) for value in dimension.values()] == points
    drawn = dimension.distribution()
    assert (drawn.low, drawn.high) == (points[0], points[-1])


def test_numbers_with_an_exponent_are_numbers_in_a_file_of_the_space_too(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "lr: {low: 1e-4, high: 3E-1, log: true, when: {decay: 1e-3}}\n"
        "decay: [1e-3, 0]\nsize: [1.5e4, .5E3]\nkind: [1e3, b]\nflip: {choices: [null, 1e-1]}\n"
    )
    space = _yaml_space(str(file))
    assert space == {
        "lr": {"low": 1e-4, "high": 0.3, "log": True, "when": {"decay": 1e-3}},
        "decay": [1e-3, 0],
        "size": [15000.0, 500.0],
        "kind": ["1e3", "b"],
        "flip": {"choices": [None, 0.1]},
    }
    # what an older program began with texts goes on with them
    begun = {"flip": {"choices": [None, "1e-1"]}, "decay": {"choices": ["1e-3", 0]}}
    write_json(tmp_path / "study.json", {"space": begun})
    assert _as_begun(space, tmp_path / "study.json") == {**space, **begun}


def test_a_range_that_an_older_program_began_goes_on_as_it_was(tmp_path):
    _, space = split(["train.momentum=range(0.2,0.6,0.1)", "train.epochs=range(1,9,3)"])
    begun = {"low": 0.2, "high": 0.5, "integer": False, "step": 0.10000000000000003}
    study = {"space": {"train.momentum": begun, "train.epochs": {"low": 1, "high": 7, "step": 3}}}
    write_json(tmp_path / "study.json", study)
    kept = _as_begun(space, tmp_path / "study.json")
    assert parse_space(kept)["train.momentum"].to_dict() == begun
    assert kept["train.epochs"] == space["train.epochs"]
    # another range is another study's
    _, other = split(["train.momentum=range(0.2,0.7,0.1)"])
    assert _as_begun(other, tmp_path / "study.json") == other


def test_the_users_own_choice_of_a_swept_group_is_its_name(tmp_path):
    groups = {"augment": "none", "db/engine": "lite", "optimizer": None}
    config = OmegaConf.create(
        {
            "augment": {"_target_": "make", "name": "none"},
            "optimizer": None,
            "train": {"momentum": 0.9},
            "hydra": {"runtime": {"choices": groups}},
        }
    )
    space = {
        "augment": {"choices": ["none", "flip"]},
        "+db/engine": {"choices": ["lite", "full"]},
        "optimizer": {"choices": [None, "adam"]},
        **SPACE,
    }
    own = {"augment": "none", "+db/engine": "lite", "optimizer": None, "train.momentum": 0.9}
    assert _defaults(space, config) == own
    assert all(parse_space(space)[name].contains(value) for name, value in own.items())


def test_a_configuration_that_lacks_a_swept_setting_is_tried_first_and_is_no_baseline(
    tmp_path, caplog
):
    space = {**SPACE, "+train.nesterov": {"choices": [True, False]}}
    app = OmegaConf.create({"train": {"momentum": 0.9}, "hydra": {"launcher": {"_target_": BASIC}}})
    with caplog.at_level(logging.WARNING):
        made = _spec(settings(tmp_path, enqueue=[{"momentum": 0.5}]), space, app)
    assert made.baseline is None
    assert made.enqueue == ({"train.momentum": 0.9}, {"train.momentum": 0.5})
    assert "has no value of +train.nesterov" in caplog.text
    # one that lies outside the space is run as it is, without what it lacks
    app.train.momentum = 0.99
    outside = _spec(settings(tmp_path), space, app)
    assert (outside.baseline, outside.enqueue) == ({"train.momentum": 0.99}, ())
    # what its condition leaves out is not lacking
    space["+train.nesterov"]["when"] = {"train.momentum": 0.5}
    app.train.momentum = 0.9
    assert _spec(settings(tmp_path), space, app).baseline == {"train.momentum": 0.9}


@pytest.mark.parametrize("name", ["train.momentum", "+train.momentum"])
def test_a_setting_that_is_swept_twice_is_refused(name):
    _, swept = split(["train.momentum=interval(0.1,0.2)", "train.layers=2,3"])
    with pytest.raises(TuneError, match=r"train\.momentum is swept on the command line and in hyd"):
        joined(swept, {name: {"low": 0.5, "high": 0.9}})
    more = {"train.drop_path": {"low": 0.0, "high": 0.3}}
    assert joined(swept, more) == {**swept, **more}


def test_a_sweep_that_goes_on_with_other_settings_says_which(tmp_path, caplog):
    def goes_on(**changes):
        caplog.clear()
        node = {
            "lr": 0.1,
            "kind": {"name": "a"},
            "epochs": 5,
            "width": float("nan"),
            "hydra": {"a": 1},
        }
        describe(
            tmp_path, OmegaConf.create({**node, "tune": {"trials": 3}, **changes}), ["+lr", "kind"]
        )
        return caplog.text

    assert goes_on() == goes_on() == ""
    # more trials, Hydra's own settings, and what the trials vary
    assert goes_on(tune={"trials": 9}, hydra={}, lr=0.2, kind={"name": "b"}) == ""
    assert "goes on with another data.name, epochs than" in goes_on(epochs=50, data={"name": "x"})
    assert "another data.name, epochs than" in goes_on()
    assert goes_on() == ""
