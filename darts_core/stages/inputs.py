"""What a stage starts from: device, images, an architecture or hand-designed network, a saved model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.data import DataBundle
from darts_core.device import require_device
from darts_core.errors import ConfigError
from darts_core.models.baselines import BASELINES, baseline, is_baseline, reads
from darts_core.models.by_name import inner
from darts_core.models.named import REGISTERED, is_named, named_model, saved_model
from darts_core.models.searched import is_named_space, network_of
from darts_core.models.weights import load_weights
from darts_core.modes import in_evaluation
from darts_core.named_inputs import shapes_of
from darts_core.runlog import read_yaml, write_yaml
from darts_core.settings import Data, Train, TrainConfig, to_plain
from darts_core.settings.tree import config_root
from darts_core.spaces import SPACES, SearchSpace
from darts_core.stages.given import LEAVE_MODELS, find_architecture, find_model
from darts_core.stages.schema import (
    DataStage,
    ExportStage,
    PruneStage,
    RecipeStage,
    ShrinkStage,
    TrainStage,
)
from darts_core.stages.targets import instantiate
from darts_core.supernet import build
from darts_core.supernet.build import check_names, height_of
from darts_core.supernet.memory import check_network
from darts_core.tasks import make_task
from darts_core.train import load_model, same_task
from darts_core.train.model_data import check_samples, tell_other_test

__all__ = [
    "Network",
    "check_fits",
    "describe_network",
    "find_device",
    "find_network",
    "load_bundle",
    "named_network",
    "open_model",
    "plain_network",
    "policy_name",
    "policy_node",
    "recipe",
]


log = logging.getLogger("darts_core")
# what of a saved file's meta rebuilds the network; the rest is of the data
_NETWORK = ("architecture", "build", "baseline", "model", "replaced", "sizes")


def find_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first GPU, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    return require_device(name)


def load_bundle(config: DataStage, device: torch.device) -> DataBundle:
    """The data of the `data` node for the task of the `task` node, on `device`.

    The division into splits does not follow the run's own `seed`: runs over seeds are compared on the
    same samples. `data.seed=N` divides otherwise.

    Raises:
        ConfigError: the task is unknown or does not take its options.
        DataError: the data are unsuitable, or not for this task.
    """
    node, usual = to_plain(config.data), to_plain(Data())
    # what is as usual is left out: a reader of your own need not take every setting
    given = {k: v for k, v in node.items() if k in ("name", "seed") or usual.get(k, ...) != v}
    if config.task.name != "auto":
        given["task"] = make_task(config.task.name, config.task.options)
    elif config.task.options:
        raise ConfigError(
            f"task.{next(iter(config.task.options))}= is an option of one task; name it, for example "
            "task=classification."
        )
    bundle: DataBundle = instantiate("data", given, config.plugins, DataBundle, device=device)
    return bundle


def policy_node(augment: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of the node `augment`, without its `_target_`; {} where it is none.

    One in a file of the user's own may have no name, or still that of the `none` which it was copied from.
    """
    node = {k: v for k, v in augment.items() if k != "_target_"}
    return {} if node.get("name") == "none" and not node.get("sub_policies") else node


def policy_name(augment: Mapping[str, Any], folder: Path) -> str | None:
    """The policy of the node `augment` as a preset's name or a file; what is no preset is written down.

    Raises:
        ConfigError: `augment=found` has no path.
    """
    node = policy_node(augment)
    if not node:
        return None
    name = node.get("name")
    if name == "found":
        if not node.get("path"):
            raise ConfigError(
                "augment=found needs augment.path=FILE, the policy that a search wrote."
            )
        return str(Path(node["path"]).expanduser().resolve())
    preset = config_root() / "augment" / f"{name}.yaml"
    shipped = read_yaml(preset) if preset.is_file() else {}
    if node == {k: v for k, v in shipped.items() if k != "_target_"}:
        return str(name)
    write_yaml(folder / "policy.yaml", node)
    return str((folder / "policy.yaml").resolve())


def recipe(config: RecipeStage, folder: Path, **changes: Any) -> TrainConfig:
    """The `train` node as a `TrainConfig`, with the `augment` node's policy and `changes`.

    Args:
        config: of the stage.
        folder: receives a policy that is no preset.
        changes: settings that replace those of the node.

    Raises:
        ConfigError: a value is out of range.
    """
    policy = policy_name(config.augment, folder)
    if policy is not None:
        changes = {"policy": policy, **changes}
    return config.train.part(TrainConfig, **changes)


@dataclass(frozen=True)
class Network:
    """The description of a plain network: an architecture, a hand-designed or a named one, its sizes.

    Attributes:
        architecture: of a searched network.
        meta: what a saved file of it holds.
        weights: a state dict that a named one starts from.
        saved: a model.pt that it is read from, with its widths and its params.
    """

    architecture: Architecture | None
    meta: Mapping[str, Any]
    weights: str | None = None
    saved: Path | None = None

    @property
    def name(self) -> str:
        """What logs call it."""
        if self.saved is not None:
            return f"the network of {self.saved.parent.name}/"
        if "model" in self.meta:
            return str(self.meta["model"]["name"])
        return str(self.meta["baseline"]["name"] if self.architecture is None else "architecture")

    def make(self) -> nn.Module:
        """A fresh network; its parameters are drawn from torch's global generator, or read from `saved`.

        Raises:
            MemoryShortageError: its sizes are such that no memory holds it.
            ResumeError: the saved file is none any more.
        """
        if self.saved is not None:
            model = load_model(self.saved)[0]
            model.train()
            return model
        if "model" in self.meta:
            found = saved_model(self.meta["model"], "model=")
            shape = found.input_shape or self.meta.get("image_shape", ())
            model = replace(found, input_shape=tuple(shape)).make()
            if self.weights is not None:
                load_weights(inner(model), self.weights)
            return model
        check_network(self._sized, torch.device("cpu"), self._sizes)
        return self._sized()

    @property
    def _sizes(self) -> str:
        """The network with the settings of its size, for a sentence."""
        node = self.meta["build" if self.architecture is not None else "baseline"]
        sizes = [f"{k}={node[k]}" for k in ("channels", "layers", "width") if node.get(k)]
        return f"The network {self.name}" + (f" of {', '.join(sizes)}" if sizes else "")

    def _sized(self) -> nn.Module:
        if self.architecture is None:
            return baseline(**self.meta["baseline"])
        return build(self.architecture, **self.meta["build"])


def find_network(config: TrainStage, version: Path, bundle: DataBundle) -> Network:
    """The network of `architecture=`: a file, a name, a text; null takes what search left in `version`.

    `model=` names another, or a saved one, which is trained on as it is: a pruned one keeps its widths.

    Raises:
        ArchitectureError: it is none of these, or search left nothing.
        ConfigError: `model=` is no network, or one of another task.
    """
    train = config.train
    if config.model is not None:
        if config.architecture is not None:
            raise ConfigError("Give model= or architecture=, not both.")
        if not is_named(config.model) and config.weights is None and not config.model_args:
            return _saved_network(config.model, version, bundle)
        return named_network(config.model, config.model_args, config.weights, bundle)
    if config.weights is not None or config.model_args:
        raise ConfigError("weights= and model_args= go with model=; give it.")
    return describe_network(config.architecture, train, version, bundle, width=train.channels)


def _saved_network(text: str, version: Path, bundle: DataBundle) -> Network:
    """The network in the file or folder `text`; it takes the data's inputs and gives its task's outputs."""
    path = find_model(text, version, ())
    model, meta = load_model(path)
    same_task(bundle, meta, str(path))
    # other classes and other heights are a training on; what comes in and goes out must fit
    check_samples(bundle, meta, str(path), trained_on=model)
    then = list(map(str, meta.get("class_names") or ()))
    if then and then != list(bundle.class_names):
        log.warning("%s was trained on other classes than those of %s", path, bundle.name)
    described = meta.get("architecture")
    found = Architecture.from_dict(described, source=str(path)) if described else None
    first = version / "searched" / "architecture.yaml"
    if found is None and text in LEAVE_MODELS and first.is_file():
        # of a space of choices the file names the network's function and not what it was found as
        found = Architecture.from_yaml(first)
    own = {key: meta[key] for key in _NETWORK if key in meta}
    return Network(found, {**own, **_about(bundle)}, saved=path)


def refuse_named(bundle: DataBundle) -> None:
    """Nothing, unless the data have several named inputs, which only a network of the user's own takes.

    Raises:
        ConfigError: they have.
    """
    if bundle.named:
        raise ConfigError(
            f"{bundle.name} has several inputs ({shapes_of(bundle.named)}): networks that are searched and "
            "hand-designed ones take one. Train one of your own, whose forward takes them by name: "
            "darts-core train model=package.module:function."
        )


def check_fits(space: SearchSpace, bundle: DataBundle) -> None:
    """Nothing, if the networks of a space read the samples of `bundle` and answer as its task asks.

    Raises:
        ConfigError: they do not.
    """
    space.check_inputs(bundle.input_shape)
    if space.skeleton == "gpt":
        _refuse_one_answer(f"space={space.name}", bundle)


def _refuse_one_answer(what: str, bundle: DataBundle) -> None:
    """Nothing, if the task wants an answer at each position, as our language models give it.

    Raises:
        ConfigError: it wants one a sample.
    """
    shape, task = bundle.input_shape, bundle.task
    if task.output_shape(shape) != (*shape, bundle.num_outputs):
        raise ConfigError(
            f"{what} answers at each position of a row of tokens, and task={task.name} of {bundle.name} "
            "wants one answer a row. Give model=package.module:function, a network of your own; if the whole "
            "numbers are no tokens but values, save them as floats."
        )


def describe_network(
    text: str | None, train: Train, version: Path, bundle: DataBundle, *, width: int | None
) -> Network:
    """The network that `text` names, sized by `train`; see `find_network`.

    Args:
        text: an architecture or a hand-designed network.
        train: the network's size.
        version: see `find_network`.
        bundle: the images that it classifies.
        width: first channels of a hand-designed network; None: as published.
    """
    refuse_named(bundle)
    about = _about(bundle)
    sizes = {"num_classes": bundle.num_outputs, "in_channels": bundle.in_channels}
    if is_baseline(text):
        known = {name for name in BASELINES if reads(name) == bundle.kind}
        if reads(str(text)) != bundle.kind:
            raise ConfigError(
                f"architecture={text} reads {reads(str(text))}; {bundle.name} holds samples of shape "
                f"{bundle.input_shape} ({bundle.kind}). Give {' or '.join(sorted(known))}, "
                "model=package.module:function, or search a network."
            )
        if bundle.kind == "tokens":
            _refuse_one_answer(f"architecture={text}", bundle)
        node = {"name": text, "width": width, **sizes}
        return Network(None, {"baseline": node, **about})
    architecture, source = find_architecture(text, version)
    if is_named_space(architecture.space):
        made = network_of(
            architecture, source, image_shape=bundle.input_shape,
            output_shape=bundle.task.output_shape(bundle.input_shape), **sizes,
        )  # fmt: skip
        return Network(architecture, {"model": made.described(), **about})
    check_names(architecture, source)
    check_fits(SPACES[architecture.space], bundle)
    return plain_network(architecture, train, bundle)


def plain_network(architecture: Architecture, train: Train, bundle: DataBundle) -> Network:
    """The network of an architecture of a registered space, sized by `train`, for the data."""
    node: dict[str, Any] = {"channels": train.channels, "layers": train.layers}
    node |= {"num_classes": bundle.num_outputs, "in_channels": bundle.in_channels}
    node |= {"auxiliary": train.auxiliary, "image_size": height_of(bundle.input_shape)}
    described = {"architecture": architecture.to_dict(), "build": node, **_about(bundle)}
    return Network(architecture, described)


def _about(bundle: DataBundle) -> dict[str, Any]:
    return {
        "image_shape": list(bundle.input_shape),
        "class_names": list(bundle.class_names),
        "mean": list(bundle.mean),
        "std": list(bundle.std),
        "data": bundle.name,
        "task": bundle.task.describe(),
        **({} if bundle.unit == 255 else {"unit": bundle.unit}),
        **({"vocabulary": list(bundle.vocabulary)} if bundle.vocabulary else {}),
        **({} if bundle.rate is None else {"rate": bundle.rate}),
        **({"named": [one.described() for one in bundle.named]} if bundle.named else {}),
    }


def named_network(
    text: str, arguments: Mapping[str, Any], weights: str | None, bundle: DataBundle
) -> Network:
    """The network of a name (see `models.named`), for the images of `bundle`.

    Raises:
        ConfigError: there is no such network, or it does not fit the images.
    """
    if not is_named(text):
        raise ConfigError(
            f"model={text!r} names no network: give package.module:function, timm:NAME"
            + "".join(f", {name}" for name in REGISTERED)
            + ", or architecture= for a searched or hand-designed one."
        )
    found = named_model(
        text,
        arguments,
        image_shape=bundle.input_shape,
        num_classes=bundle.num_outputs,
        in_channels=bundle.in_channels,
        output_shape=bundle.task.output_shape(bundle.input_shape),
        inputs=bundle.named,
    )
    return Network(None, {"model": found.described(), **_about(bundle)}, weights)


def open_model(
    config: PruneStage | ShrinkStage | ExportStage,
    version: Path,
    stages: tuple[str, ...],
    bundle: DataBundle,
    device: torch.device,
) -> tuple[nn.Module, dict[str, Any], Path | None]:
    """The network of `model=`, its meta, and the file that it was read from, if it was.

    Raises:
        ConfigError: there is none, or it does not fit the data.
    """
    if config.model is not None and is_named(config.model):
        network = named_network(config.model, config.model_args, config.weights, bundle)
        if network.weights is None:
            log.warning("model=%s has no weights=: it is taken as it is made", config.model)
        torch.manual_seed(config.seed)
        return in_evaluation(network.make().to(device)), dict(network.meta), None
    if config.weights is not None or config.model_args:
        raise ConfigError(
            "weights= and model_args= go with a named model, such as model=package.module:function."
        )
    path = find_model(config.model, version, stages)
    if not isinstance(config, ExportStage):  # which reads no test split
        tell_other_test(path.parent, to_plain(config.data))
    model, meta = load_model(path, device=device)
    return model, meta, path
