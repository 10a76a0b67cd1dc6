"""Plugins and `_target_`: what a configuration may make, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core.errors import ConfigError
from darts_core.stages.settings import check_targets, config_root, import_plugins, instantiate

HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "darts_corex.evil",
    "torch.load",
    "torch.optimx.SGD",
    "darts_core",
    "",
]


def test_ours_and_torch_optimizers_are_made() -> None:
    made = instantiate(
        {"_target_": "darts_core.relax.Softmax", "temperature": 2.0, "description": "x"}
    )
    assert made.temperature == 2.0
    from torch.optim import SGD

    assert (
        instantiate({"_target_": "torch.optim.SGD"}, params=[_parameter()], lr=0.1).__class__ is SGD
    )


def _parameter():
    import torch

    return torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("target", HOSTILE)
def test_foreign_targets_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"refused|nothing that can be imported"):
        instantiate({"_target_": target, "command": "echo"})


@pytest.mark.parametrize(
    "target",
    [
        "darts_core.runlog.os.system",
        "darts_core.runlog.subprocess.run",
        "torch.optim.sgd.torch.load",
    ],
)
def test_foreign_things_reached_through_our_modules_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"refused|nothing that can be imported"):
        instantiate({"_target_": target})


def test_targets_are_found_at_any_depth_and_named_by_their_key() -> None:
    node = {"a": [{"b": {"_target_": "os.system"}}]}
    with pytest.raises(ConfigError, match=r"strategy\.a\[0\]\.b.*os\.system.*plugins"):
        check_targets(node, where="strategy")
    check_targets(node, ["os"])


def test_settings_that_the_target_does_not_take_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="does not take these settings"):
        instantiate({"_target_": "darts_core.relax.Softmax", "temprature": 2.0})


def test_plugins_are_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plugin_here.py").write_text("class Thing:\n    pass\n")
    (tmp_path / "my_plugin_broken.py").write_text("1 / 0\n")
    (tmp_path / "my_plugin_lacks.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    import_plugins(["my_plugin_here"])
    assert instantiate({"_target_": "my_plugin_here.Thing"}, ["my_plugin_here"])
    with pytest.raises(ConfigError, match="no such module"):
        import_plugins(["my_plugin_absent"])
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        import_plugins(["my_plugin_broken"])
    with pytest.raises(ConfigError, match="not_there_at_all"):
        import_plugins(["my_plugin_lacks"])


def test_the_configuration_tree_is_found() -> None:
    assert (config_root() / "search.yaml").is_file()
