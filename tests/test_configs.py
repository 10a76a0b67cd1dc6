"""Every YAML file of the configuration tree composes, is typed in full, and can be made real."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from darts_core.commands.compose import compose, session
from darts_core.commands.help import GROUPS
from darts_core.commands.listing import collect
from darts_core.settings import to_plain
from darts_core.settings.tree import config_root
from darts_core.stages.callbacks import make_callbacks
from darts_core.stages.schema import COMMANDS, STAGES, deciding
from darts_core.stages.search_setup import make_guards
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
    if group == "guards":  # the node holds guards and nothing else
        assert collect("guards")[choice]
    elif group != "experiment":
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


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "guards"])
def test_every_choice_of_guards_can_be_made(choice: str) -> None:
    with session() as extra:
        config = compose("search", [f"guards={choice}"], extra)
    assert len(make_guards(config)) == len(config.search.guards)


def test_guards_have_their_former_place_and_spelling() -> None:
    with session() as extra:
        config = compose("search", ["search.guards.skips.stop=false"], extra)
        several = compose("search", ["guards=[cells,strict]", "search.guards.ties=null"], extra)
    assert {guard.name for guard in make_guards(config)} == {
        "skips", "trainable", "ties", "eigenvalue", "gradient_similarity",
    }  # fmt: skip
    assert not make_guards(config)[0].stop  # type: ignore[attr-defined]
    assert [guard.name for guard in make_guards(several)] == [
        "skips", "trainable", "eigenvalue", "gradient_similarity",
    ]  # fmt: skip
    assert deciding(config).keys() == {f.name for f in fields(config)} - {"callbacks"}


def test_two_guards_of_one_class_are_called_as_their_nodes() -> None:
    """A checkpoint keeps the state of a guard, and a search counts its doubts, by its name."""
    second = "+search.guards.more._target_=darts_core.search.guards.SkipCount"
    with session() as extra:
        config = compose("search", ["guards=cells", second], extra)
    assert [guard.name for guard in make_guards(config)] == ["skips", "trainable", "ties", "more"]


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "callbacks"])
def test_every_choice_of_callbacks_can_be_made(choice: str) -> None:
    for command in ("search", "train", "tune"):
        with session() as extra:
            config = compose(command, [f"callbacks={choice}"], extra)
        assert bool(make_callbacks(config, Path())) == (choice != "none")


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g == "space" and c != "auto"])
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
