"""Every YAML file of the configuration tree composes, is typed in full, and can be made real."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core.commands.compose import compose, session
from darts_core.commands.help import GROUPS
from darts_core.settings import to_plain
from darts_core.settings.tree import config_root
from darts_core.stages.schema import COMMANDS, STAGES
from darts_core.stages.targets import instantiate

CONF = config_root()
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_of_a_command_compose(command: str) -> None:
    with session() as extra:
        config = compose(command, [], extra)
    assert type(config) is STAGES[command]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_with_a_command_that_uses_it(group: str, choice: str) -> None:
    with session() as extra:
        config = compose("run", [f"{group}={choice}"], extra)
    if group != "experiment":
        assert to_plain(config)[group].get("description"), (
            f"{group}/{choice}.yaml needs a description"
        )


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "relax"])
def test_every_relaxation_can_be_made(choice: str) -> None:
    with session() as extra:
        node = compose("search", [f"relax={choice}"], extra).relax
    made = instantiate("relax", node)
    assert callable(made.weights)


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "strategy"])
def test_every_strategy_can_be_made(choice: str) -> None:
    with session() as extra:
        node = compose("search", [f"strategy={choice}"], extra).strategy
    made = instantiate("strategy", node)
    assert callable(made.step)


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "space"])
def test_every_space_is_registered(choice: str) -> None:
    from darts_core.spaces import get_space

    with session() as extra:
        node = compose("search", [f"space={choice}"], extra).space
    assert get_space(node.name, node.ops).name == node.name


def test_no_config_names_a_place_outside_the_project() -> None:
    for path in Path(CONF).rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if line.strip().startswith("_target_:"):
                target = line.split(":", 1)[1].strip().strip("'\"")
                roots = ("darts_core.", "torch.optim.", "hydra", "hydra_plugins.")
                assert target.startswith(roots), f"{path}: {target}"
