"""Plugins and `_target_`: what a configuration may make, and what it may not."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from darts_core.errors import ConfigError
from darts_core.relax import Relaxation
from darts_core.settings.tree import config_root
from darts_core.stages.targets import (
    TARGET_GROUPS,
    check_targets,
    import_plugins,
    instantiate,
    registered,
)

HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "darts_corex.evil",
    "torch.load",
    "torch.optimx.SGD",
    "darts_core",
    "",
    # of this package, but registered for nothing
    "darts_core.runlog.write_text",
    "darts_core.export.load",
    "darts_core.stages.search.search",
    # registered for other groups
    "darts_core.data.load_data",
    "darts_core.strategies.FirstOrder",
    # spelt like something registered
    "darts_core.export.Softmax",
    "darts_core.runlog.os.system",
    "darts_core.runlog.subprocess.run",
    "torch.optim.sgd.torch.load",
    "torch.optim.lr_scheduler.StepLR",
    # Hydra's own
    "hydra.test_utils.test_utils.run_process",
    "hydra.utils.call",
]


def test_registered_classes_are_made_by_either_name() -> None:
    for name in ("darts_core.relax.Softmax", "darts_core.relax.softmax.Softmax"):
        made = instantiate("relax", {"_target_": name, "temperature": 2.0, "description": "x"})
        assert made.temperature == 2.0


def test_optimizers_are_made() -> None:
    import torch
    from torch.optim import SGD

    parameter = torch.nn.Parameter(torch.zeros(1))
    made = instantiate(None, {"_target_": "torch.optim.SGD"}, params=[parameter], lr=0.1)
    assert type(made) is SGD
    with pytest.raises(ConfigError, match=r"strategy takes darts_core\.strategies"):
        instantiate("strategy", {"_target_": "torch.optim.SGD"}, params=[parameter], lr=0.1)


def test_a_refusal_names_what_the_group_takes_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as told:
        check_targets("data", {"_target_": "os.system"}, where="data")
    assert str(told.value) == (
        "data: _target_='os.system' is refused; data takes darts_core.data.load_data, or what a module "
        "named in plugins=[...] defines."
    )
    with pytest.raises(ConfigError, match=r"here takes an optimizer of torch\.optim, or what"):
        check_targets("data", {"inner": {"_target_": "os.system"}}, where="data")


@pytest.mark.parametrize("target", HOSTILE)
def test_what_is_not_registered_for_the_group_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"refused|nothing that can be imported"):
        instantiate("relax", {"_target_": target, "command": "echo"})


def test_every_group_has_registered_targets_that_can_be_imported() -> None:
    for group in TARGET_GROUPS:
        assert registered(group), group
        for target in registered(group):
            module, _, name = target.rpartition(".")
            assert callable(getattr(importlib.import_module(module), name))


def test_targets_are_found_at_any_depth_and_named_by_their_key() -> None:
    node = {"a": [{"b": {"_target_": "os.system"}}]}
    with pytest.raises(ConfigError, match=r"strategy\.a\[0\]\.b.*os\.system.*plugins"):
        check_targets("strategy", node, where="strategy")
    check_targets("strategy", node, ["os"])


def test_a_registered_class_below_its_node_is_refused() -> None:
    inner = {"_target_": "darts_core.strategies.FirstOrder"}
    with pytest.raises(ConfigError, match=r"strategy\.inner"):
        check_targets("strategy", {**inner, "inner": inner}, where="strategy")


def test_settings_that_the_target_does_not_take_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="does not take these settings"):
        instantiate("relax", {"_target_": "darts_core.relax.Softmax", "temprature": 2.0})


def test_plugins_are_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "my_plugin_here.py").write_text("import os\n\n\nclass Thing:\n    pass\n")
    (tmp_path / "my_plugin_broken.py").write_text("1 / 0\n")
    (tmp_path / "my_plugin_lacks.py").write_text("import not_there_at_all\n")
    (tmp_path / "timmlike_ops.py").write_text("import timmlike\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    import_plugins(["my_plugin_here"])
    assert instantiate("relax", {"_target_": "my_plugin_here.Thing"}, ["my_plugin_here"])
    with pytest.raises(
        ConfigError, match=r"relax: my_plugin_here\.Thing makes a Thing; it must be"
    ):
        instantiate("relax", {"_target_": "my_plugin_here.Thing"}, ["my_plugin_here"], Relaxation)
    with pytest.raises(ConfigError, match="refused"):
        instantiate("relax", {"_target_": "my_plugin_here.os"}, ["my_plugin_here"])
    with pytest.raises(ConfigError, match="no such module"):
        import_plugins(["my_plugin_absent"])
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        import_plugins(["my_plugin_broken"])
    assert "which has the same name" not in caplog.text
    (tmp_path / "colorsys.py").write_text("")
    import_plugins(["colorsys"])
    assert f"not {tmp_path / 'colorsys.py'}, which has the same name" in caplog.text
    with pytest.raises(ConfigError, match="not_there_at_all"):
        import_plugins(["my_plugin_lacks"])
    with pytest.raises(ConfigError, match="needs the missing module 'timmlike'"):
        import_plugins(["timmlike_ops"])


def test_the_configuration_tree_is_found() -> None:
    assert (config_root() / "search.yaml").is_file()
