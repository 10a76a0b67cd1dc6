"""Saved networks: weights plus the description that rebuilds them, pruned widths included."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from darts_core.checkpoint import load_checkpoint, save_checkpoint, taking_over
from darts_core.data.source import check_memory
from darts_core.errors import ResumeError, unknown_name
from darts_core.modes import in_evaluation
from darts_core.supernet.memory import state_bytes
from darts_core.supernet.replace import is_identity, is_zero, replace_modules
from darts_core.supernet.tied import kept_tied

__all__ = ["is_identity", "is_zero", "load_model", "replace_modules", "reshape_like", "save_model"]

_REMEDY = (
    "give a model.pt that `darts-core train` or `prune` wrote; the weights of a network of your own go with "
    "model=package.module:function weights=FILE"
)
# no size of a network is larger
_MOST = 100_000


def save_model(path: str | Path, model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Write `model`'s state and `meta` to one file that `load_model` rebuilds the network from.

    Args:
        path: the file.
        model: a network from `build` or `baseline`, pruned or not.
        meta: `{"architecture": architecture.to_dict(), "build": {channels, layers, ...}}`, or
            `{"baseline": {"name": ..., "num_classes": ..., ...}}`, or `{"model":
            NamedModel.described()}`; further plain values are kept (image_shape, class_names, mean, std
            ...). `replaced` names modules that were cut, `sizes` whole-number attributes that were.

    Raises:
        ResumeError: `meta` describes no network.
    """
    described = meta.get("architecture") or meta.get("baseline") or meta.get("model")
    if not isinstance(described, Mapping):
        raise ResumeError(
            f"Cannot save {path}: meta has the keys {sorted(meta)} but needs 'architecture' (with "
            "'build'), 'baseline' or 'model', or nothing could rebuild the network."
        )
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    untold = _untold(model)
    more = {"sizes": {**dict(meta.get("sizes") or {}), **untold}} if untold else {}
    save_checkpoint(path, {"kind": "model", "state": state, "meta": {**meta, **more}})


def _untold(model: nn.Module) -> dict[str, int]:
    """Widths that no tensor of the state tells: those of norms without weights."""
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        if untold := untold_width(module):
            found[f"{path}.{untold[0]}"] = int(untold[1])
    return found


def untold_width(module: nn.Module) -> tuple[str, int] | None:
    """What alone says how many channels a norm without weights has: an attribute; None of another layer."""
    if getattr(module, "weight", 0) is not None:
        return None
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        return "normalized_shape", module.normalized_shape[0]
    if isinstance(module, nn.GroupNorm):
        return "num_channels", module.num_channels
    if not isinstance(module, nn.modules.instancenorm._InstanceNorm) or module.track_running_stats:
        return None
    # a lazy one that has nothing to build never learns how many they are
    return ("num_features", module.num_features) if module.num_features > 0 else None


def load_model(path: str | Path, *, device: Any = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network of a file written by `save_model`, in evaluation mode, and its meta.

    Raises:
        ResumeError: the file is missing, damaged, not a saved model, or its weights do not fit.
    """
    content = load_checkpoint(path, remedy=_REMEDY)
    if content.get("kind") != "model":
        raise ResumeError(f"{path} is not a saved model (kind {str(content.get('kind'))[:80]!r}).")
    meta, state = content.get("meta"), content.get("state")
    if not isinstance(meta, Mapping) or not isinstance(state, Mapping) or not state:
        raise ResumeError(f"{path} lacks 'meta' or 'state'; save the model again.")
    _check_state(path, state)
    with taking_over(path):
        model = _rebuild(path, meta, state)
        try:
            model = fit_to(model, state, meta.get("replaced"), meta.get("sizes"), source=str(path))
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise ResumeError(
                f"The weights in {path} do not fit its own description: {first}"
            ) from error
    return in_evaluation(model.to(device)), dict(meta)


def fit_to(
    model: nn.Module,
    state: Mapping[str, Tensor],
    replaced: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Any] | None = None,
    *,
    source: str = "the network",
) -> nn.Module:
    """A network cut down to what `state` holds, with it in place.

    Args:
        model: as it was before the cut.
        state: parameters of the cut one.
        replaced: path -> what stands in a module's place.
        sizes: path of a number that follows from a width -> the number.
        source: what an error names.

    Raises:
        ResumeError: a size is none of the network.
        RuntimeError: the parameters do not fit.
    """
    gone = tuple(replaced or ())
    model = replace_modules(model, dict(replaced or {}))
    # an earlier program's file may name heads of a block that went after them
    still = {k: v for k, v in (sizes or {}).items() if not any(_inside(str(k), at) for at in gone)}
    _resize_attributes(source, model, still)
    with kept_tied(model):
        reshape_like(model, state)
        model.load_state_dict(dict(state))
    return model


def _inside(place: str, path: str) -> bool:
    return place.startswith(f"{path}.")


def _resize_attributes(path: str | Path, model: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Set numbers that follow from a width and stand in no tensor, such as an attention's heads."""
    for place, value in sizes.items():
        owner, _, name = str(place).rpartition(".")
        module = model.get_submodule(owner)
        old = vars(module).get(name)
        # a layer norm's shape is a tuple
        whole = old[0] if type(old) is tuple and len(old) == 1 else old
        if type(whole) is not int or type(value) is not int or not 1 <= value <= whole:
            raise ResumeError(
                f"{path}: {str(place)[:80]}={str(value)[:20]!r} is no size of the network."
            )
        setattr(module, name, value if whole is old else (value,))


def _check_state(path: str | Path, state: Mapping[Any, Any]) -> None:
    """Every value is an ordinary tensor whose numbers are in the file.

    A view may announce any shape over one stored number; copying it would take that much memory.
    """
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ResumeError(
                f"{path}: {str(name)[:80]!r} is no named tensor; save the model again."
            )
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ResumeError(
                f"{path}: the tensor {name[:80]!r} of shape {list(value.shape)[:8]} is not stored as "
                "plain numbers; save the model again."
            )


def _rebuild(path: str | Path, meta: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The network that `meta` describes, with weights of its own."""
    if meta.get("architecture"):
        from darts_core.architecture import Architecture
        from darts_core.supernet.build import build

        architecture = Architecture.from_dict(meta["architecture"], source=str(path))
        make: Callable[..., nn.Module] = partial(build, architecture)
        node = dict(meta.get("build") or {})
    elif isinstance(meta.get("baseline"), Mapping):
        from darts_core.models.baselines import baseline

        make, node = baseline, dict(meta["baseline"])
    elif isinstance(meta.get("model"), Mapping):
        from darts_core.models.named import saved_model

        return saved_model(meta["model"], str(path)).make()
    else:
        raise ResumeError(f"{path} describes no network ('architecture', 'baseline' or 'model').")
    _check_sizes(path, make, node, state)
    return make(**node)


def _check_sizes(
    path: str | Path, make: Callable[..., Any], node: dict[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Refuse arguments that `make` lacks, and sizes that the stored weights cannot come from."""
    known = inspect.signature(make).parameters
    for key, value in node.items():
        if key not in known:
            raise ResumeError(f"{path}: {unknown_name('setting of the network', str(key), known)}")
        # a cell of pools has no weight; all others have one or more
        most = max(100, len(state)) if key == "layers" else _MOST
        if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= most:
            raise ResumeError(f"{path}: {key}={value} of the network is not within 1..{most}.")
        if value is not None and not isinstance(value, (str, int)):
            raise ResumeError(f"{path}: {key} of the network is a {type(value).__name__}.")
    try:
        needed = state_bytes(lambda: make(**node))
    except Exception as error:
        if "meta" not in str(error):
            raise
        # a registered network of the user's own reads values that it makes: what is only described has none
        return
    check_memory(needed, path)


def reshape_like(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give every convolution, norm, linear layer and free parameter the widths of the tensors in `state`.

    A pruned network has the graph of its architecture and narrower layers; its state says how
    narrow. The new tensors are uninitialised: load `state` afterwards. Depthwise convolutions keep
    one group a channel. Returns `model`.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if any(is_lazy(own) for own in (*module._parameters.values(), *module._buffers.values())):
            continue  # not built yet: it takes the sizes of what is loaded
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            _reshape_conv(module, state.get(f"{prefix}weight"))
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            _reshape_transposed(module, state.get(f"{prefix}weight"))
        elif isinstance(module, nn.modules.batchnorm._NormBase):  # of batches, of instances
            _reshape_norm(module, state.get(f"{prefix}running_mean", state.get(f"{prefix}weight")))
        elif isinstance(module, nn.Linear):
            weight = state.get(f"{prefix}weight")
            if weight is not None and weight.shape != module.weight.shape:
                module.out_features, module.in_features = weight.shape
                _resize(module, "weight", weight.shape)
                _resize(module, "bias", weight.shape[:1])
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            _reshape_layer_norm(module, state.get(f"{prefix}weight"))
        elif isinstance(module, nn.Embedding):
            _reshape_embedding(module, state.get(f"{prefix}weight"))
        else:
            _note_width(module, state, prefix)
        for own, tensor in (*module.named_parameters(recurse=False),):
            # what stands free of a layer: a transformer's positions, a class token
            stored = state.get(f"{prefix}{own}")
            if stored is not None and stored.dim() == tensor.dim() and stored.shape != tensor.shape:
                _resize(module, own, stored.shape)
    return model


def _reshape_layer_norm(module: nn.LayerNorm | nn.RMSNorm, weight: Tensor | None) -> None:
    if weight is None or weight.shape == module.weight.shape:
        return
    module.normalized_shape = tuple(weight.shape)
    _resize(module, "weight", weight.shape)
    if isinstance(module, nn.LayerNorm):
        _resize(module, "bias", weight.shape)


def _note_width(module: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    """What a layer says of its width, for another cut; its tensors are reshaped as those free of a layer."""
    weight = state.get(f"{prefix}{'weight_ih_l0' if isinstance(module, nn.RNNBase) else 'weight'}")
    if weight is None:
        return
    if isinstance(module, nn.RNNBase) and weight.dim() == 2:
        module.input_size = weight.shape[1]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def _reshape_embedding(module: nn.Embedding, weight: Tensor | None) -> None:
    if weight is None or weight.shape == module.weight.shape:
        return
    module.num_embeddings, module.embedding_dim = weight.shape
    _resize(module, "weight", weight.shape)


def _resize(module: nn.Module, name: str, shape: Any) -> None:
    old = getattr(module, name)
    # one that stays may be derived from others, as by a parametrization, which takes no new one
    if old is None or old.shape == tuple(shape):
        return
    new = old.detach().new_empty(tuple(shape))
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, name, new)


def _reshape_conv(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, weight: Tensor | None) -> None:
    if weight is None or weight.shape == module.weight.shape:
        return
    # depthwise, or cut down to it: of several outputs a channel one was left, and then channels went
    if module.groups == module.in_channels and weight.shape[0] < module.groups:
        module.groups = weight.shape[0]
    module.out_channels = weight.shape[0]
    module.in_channels = weight.shape[1] * module.groups
    _resize(module, "weight", weight.shape)
    _resize(module, "bias", weight.shape[:1])


def _reshape_transposed(module: nn.modules.conv._ConvTransposeNd, weight: Tensor | None) -> None:
    """A weight here is [in, out / groups, ...]."""
    if weight is None or weight.shape == module.weight.shape:
        return
    if module.groups == module.in_channels == module.out_channels:
        module.groups = weight.shape[0]
    module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    _resize(module, "weight", weight.shape)
    _resize(module, "bias", (module.out_channels,))


def _reshape_norm(module: nn.modules.batchnorm._NormBase, like: Tensor | None) -> None:
    if like is None or like.shape[0] == module.num_features:
        return
    module.num_features = like.shape[0]
    for name in ("weight", "bias", "running_mean", "running_var"):
        _resize(module, name, like.shape[:1])
