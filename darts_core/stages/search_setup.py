"""What a search is made of, from its configuration: supernet, settings, guards, augmentation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_core.data import DataBundle
from darts_core.errors import ConfigError, unknown_name
from darts_core.models.named import REGISTERED, is_named
from darts_core.models.searched import named_space
from darts_core.ops.base import check_op
from darts_core.penalties import AlphaPenalty
from darts_core.relax import Relaxation
from darts_core.runlog import write_json
from darts_core.search import Guard, SearchConfig
from darts_core.settings import Search
from darts_core.settings.search import Space
from darts_core.spaces import ChoiceSpace, SearchSpace, get_space
from darts_core.stages.inputs import policy_name
from darts_core.stages.schema import SearchStage
from darts_core.stages.targets import instantiate, instantiate_each
from darts_core.strategies import Strategy
from darts_core.supernet import Supernet, create_supernet
from darts_core.supernet.build import NETWORKS

__all__ = [
    "AUTO",
    "alpha_penalties",
    "augmentation",
    "check_path",
    "check_plain",
    "known_space",
    "make_guards",
    "make_strategy",
    "make_supernet",
    "space_of",
    "step_of",
    "tune_kernels",
]

log = logging.getLogger("darts_core")
AUTO = "auto"
# the space that `space=auto` means, by what is read and, for images, from how many pixels a side on
_AUTO = {"series": "conv1d", "tokens": "gpt_tiny"}
_BY_SIDE = ((16, "convnet_deep"), (0, "convnet"))


def known_space(node: Space, bundle: DataBundle) -> Space:
    """The node `space` with the name of a registered space: what `auto` means is said and filled in.

    Small images are pooled twice at most, larger ones three times.

    Raises:
        ConfigError: no space is meant for what the data hold.
    """
    if node.name != AUTO:
        return node
    kind = bundle.kind
    if kind == "image":
        side = min(bundle.input_shape[1:])
        meant = next(name for least, name in _BY_SIDE if side >= least)
    elif kind in _AUTO:
        meant = _AUTO[kind]
    else:
        raise ConfigError(f"space=auto has no space for {kind} data; name one: space=NAME.")
    log.info("space=auto is %s for these data, samples of shape %s", meant, bundle.input_shape)
    return replace(node, name=meant)


def space_of(config: SearchStage, bundle: DataBundle) -> SearchSpace:
    """The choices in the network of `model=`; else the `space` node's space, over its `ops` where given.

    Raises:
        ConfigError: there is no such network, it holds no choices, or `model_args` are given without it.
    """
    if config.model is None:
        if config.model_args:
            raise ConfigError("model_args= goes with model=; give it.")
        node = known_space(config.space, bundle)
        if node.name == "convnet" and min(bundle.input_shape[1:], default=0) >= _BY_SIDE[0][0]:
            log.info(
                "convnet pools twice at most, which suits images of about 8 pixels; for these try "
                "space=convnet_deep"
            )
        return get_space(node.name, node.ops)
    if not is_named(config.model):
        raise ConfigError(
            f"model={config.model!r} names no network: give package.module:function, "
            f"{', '.join([*REGISTERED, 'timm:NAME'])}; its choices are searched."
        )
    if config.space.ops is not None:
        raise ConfigError(
            "space.ops= goes with a space of cells; the network of model= brings its choices."
        )
    return named_space(
        config.model,
        config.model_args,
        image_shape=bundle.input_shape,
        reads=bundle.kind,
        num_classes=bundle.num_outputs,
        in_channels=bundle.in_channels,
        output_shape=bundle.task.output_shape(bundle.input_shape),
    )


def check_path(config: SearchStage, space: SearchSpace) -> None:
    """Refuse a path of supernets of cells for a network with choices in it, which runs as it is.

    Raises:
        ConfigError: says so.
    """
    path = config.search.path
    if isinstance(space, ChoiceSpace) and path not in ("auto", "plain"):
        raise ConfigError(
            f"search.path={path} is for spaces of cells; {space.name} chooses in ordinary modules, which "
            "have one path only: leave it out."
        )


def check_plain(config: SearchStage, space: SearchSpace) -> None:
    """Refuse a skeleton without plain networks before the search: its finalists are such, behind it.

    Raises:
        ConfigError: says so.
    """
    if config.search.finalists > 1 and space.skeleton not in NETWORKS:
        raise ConfigError(
            f"The space {space.name!r}: {unknown_name(NETWORKS.kind, space.skeleton, NETWORKS)} The "
            "finalists of its search are such networks: register one with register_network, or give "
            "search.finalists=1."
        )


def make_supernet(
    config: SearchStage, space: SearchSpace, bundle: DataBundle, device: torch.device
) -> Supernet:
    """A fresh supernet on `device`; its parameters are drawn from torch's global generator.

    Raises:
        ConfigError: a relaxation or an operation of the user's own is none.
    """
    node = config.search
    relaxation: Relaxation = instantiate("relax", config.relax, config.plugins, Relaxation)
    # a skeleton of the user's own may ask for other shapes
    for stride in {"darts": (1, 2), "nasbench201": (1,)}.get(space.skeleton, ()):
        for op in space.ops:
            check_op(op, max(node.channels // relaxation.channel_fraction, 1), stride)
    supernet = create_supernet(
        space,
        channels=node.channels,
        layers=node.layers,
        num_classes=bundle.num_outputs,
        in_channels=bundle.in_channels,
        relaxation=relaxation,
        input_shape=bundle.input_shape,
    ).to(device)
    # models with choices in ordinary modules have one path only, and what is only counted takes none
    if isinstance(supernet, Supernet) and device.type != "meta":
        supernet.use_path(node.path, node.kernel_precision)
    return supernet


def tune_kernels(settings: Search, supernet: Any, bundle: Any) -> None:
    """Find tiles for the shapes of cells that this device meets for the first time; nothing on a CPU."""
    seconds = settings.tune_seconds
    if seconds <= 0 or getattr(supernet, "path", "plain") != "fused":
        return
    from darts_core.latency.measure import quick_ms
    from darts_core.supernet.tiles import tune_supernet

    def time_ms(call: Callable[[], Any]) -> float:
        return quick_ms(call, device=bundle.device)

    tune_supernet(supernet, bundle.image_shape, settings.batch_size, time_ms, seconds=seconds)


def make_strategy(config: SearchStage) -> Strategy:
    """What `strategy=` names, fresh.

    Raises:
        ConfigError: it is no strategy.
    """
    made: Strategy = instantiate("strategy", config.strategy, config.plugins, Strategy)
    return made


def make_guards(config: SearchStage) -> list[Guard]:
    """The watchers of `search.guards`, which `guards=` fills; one set to null is left out.

    Two that call themselves alike, of one class or without a name of their own, are called as their nodes: by
    its name a guard's doubts count and a checkpoint keeps its state.

    Raises:
        ConfigError: a node makes no guard.
    """
    nodes = config.search.guards
    made = instantiate_each("guards", nodes, config.plugins, Guard, where="search.guards")
    names = Counter(guard.name for guard in made.values())
    for node, guard in made.items():
        if names[guard.name] > 1:
            guard.name = node
    return list(made.values())


def step_of(
    config: SearchStage, bundle: DataBundle, settings: SearchConfig
) -> Callable[[Any], Callable[[Tensor, Tensor], Any]]:
    """Supernet -> one real step of the strategy, for a forecast; what it selects by is not measured."""

    def made(supernet: Any) -> Callable[[Tensor, Tensor], Any]:
        strategy = make_strategy(config)
        strategy.task = bundle.task
        strategy.setup(supernet, settings, [])
        strategy.evaluator = lambda forward, batches: 0.0
        strategy.start_epoch(0, settings.epochs)
        return lambda x, y: strategy.trial_step((x, y), (x, y))

    return made


def alpha_penalties(config: SearchStage) -> list[AlphaPenalty]:
    """What `penalty=` adds to the alpha loss.

    Raises:
        ConfigError: it is no penalty.
    """
    if "_target_" not in config.penalty:
        return []
    return [instantiate("penalty", config.penalty, config.plugins, AlphaPenalty)]


def augmentation(config: SearchStage, folder: Path, bundle: DataBundle) -> Any:
    """The transform of `search.crop_padding` and the like, and of the policy; None for none."""
    from darts_core.augment.by_kind import augment_for

    policy = policy_name(config.augment, folder)
    shape, given, mirrors = bundle.input_shape, config.search, bundle.task.mirrors
    if given.flip is None and not mirrors:
        mirrors = _mirrored_before(folder)
    return augment_for(shape, given, policy, node="search", unit=bundle.unit, mirrors=mirrors)


def _mirrored_before(folder: Path) -> bool:
    """Whether a search goes on that an older program began, which asked no task: as it began."""
    path = folder / "mirrors.json"
    if not path.is_file() and not (folder / "checkpoint.pt").is_file():
        write_json(path, {"schema_version": 1, "mirrors": False})
    return not path.is_file()
