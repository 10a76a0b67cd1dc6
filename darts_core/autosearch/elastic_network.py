"""`autosearch.elastic(model, shape)` and `autosearch.backward(loss_of, x, y)`: one training for a front.

In the user's own trial both do what her script did. In the elastic trial the network starts from her
trained one and each step forms the gradients of several sub-networks; at its end one is chosen for each
budget. In the trial of a chosen one `elastic` gives that sub-network, and `backward` leaves it as it is (or
fine-tunes it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darts_core.autosearch.elastic_stage import LossOf, Stage
from darts_core.errors import ConfigError, first_line
from darts_core.modes import evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["JUDGED", "POINT", "backward", "elastic", "point_path"]

JUDGED = "the sub-network was judged"
POINT = re.compile(r"([0-9a-f]{8})/([0-9]{1,3})")


def point_path(trials: Path, value: str) -> Path:
    """Where the elastic trial left a sub-network that a setting names as `<trial>/<number>`."""
    match = POINT.fullmatch(value)
    if match is None:
        raise ConfigError(
            f"The setting {value[:80]!r} is no sub-network; use 'whole', or what the elastic trial named."
        )
    return trials / match[1] / f"point-{match[2]}.pt"


def elastic(
    model: nn.Module, input_shape: Sequence[int], *, task: str = "classification",
    setting: str = "subnetwork",
) -> nn.Module:  # fmt: skip
    """The network to train in this trial: yours, yours made elastic, or one of its sub-networks.

    Call it before the optimizer is made, and train with `autosearch.backward`. Outside a job it is yours.

    Args:
        model: your network; it takes one tensor.
        input_shape: of one example: (C, H, W), (C, T), or (T,) of token numbers.
        task: classification, multi_label, regression or next_token: how a sub-network learns from yours.
        setting: the setting that names the sub-network (`setting` of the job file).

    Raises:
        ConfigError: the trial's setting names no sub-network, or is another one than the job file's; the
            task is unknown.
    """
    from darts_core.autosearch.contract import current
    from darts_core.autosearch.networks import remember_cut
    from darts_core.prune.heads import open_attentions
    from darts_core.tasks import make_task

    make_task(task)  # a wrong name ends the first trial, not the one behind it
    trial, shape = current(), tuple(int(size) for size in input_shape)
    value = str(trial.config.get(setting, "whole"))
    options, given = dict(trial.record.get("elastic", {})), model
    if "start" in options and value != "elastic":
        raise ConfigError(
            f"The job file has search_algorithm.setting: {options.get('setting')}, and the script asks for "
            f"{setting!r}; give autosearch.elastic(model, input_shape, setting=...) the same name."
        )
    cut = None
    if trial.folder is None or value == "whole":
        stage = Stage(model, "whole", shape, task)
    elif value == "elastic":
        started = _started(model, Path(options["start"]), shape)
        # now, not at the first step: what the script saves is loaded here by its next attempt
        opened, _ = open_attentions(started, shape, trained=True)
        cut = {"replaced": opened, "sizes": {}} if opened else None
        stage = Stage(started, "elastic", shape, task, options)
        _in_search(stage, opened)
    else:
        model, cut = _cut(model, point_path(trial.folder.parent, value))
        stage = Stage(model, "point", shape, task, options)
        stage.tuned = int(options.get("fine_tuning", 0)) > 0
        if not stage.tuned:
            _hold_still(model)
    trial.elastic = stage
    remember_cut(stage.model, given, shape, cut)
    return stage.model


def backward(
    loss_of: LossOf, x: Tensor, y: Tensor, *, scale: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The loss of a batch, its gradients formed; for `loss = loss_of(model(x), y); loss.backward()`.

    Args:
        loss_of: called with the network's outputs and `y`.
        x: inputs.
        y: targets.
        scale: of the loss before its gradient is formed, such as a `GradScaler`'s `scale`.

    Raises:
        ConfigError: no network of this trial was given to `autosearch.elastic`.
    """
    import torch

    from darts_core.autosearch.contract import StopTrial, current

    trial = current()
    stage = trial.elastic
    if stage is None:
        raise ConfigError(
            "backward() needs a network made by autosearch.elastic(model, input_shape)."
        )
    if stage.kind == "elastic":
        return stage.family.backward(loss_of, x, y, scale)  # type: ignore[no-any-return]
    if stage.tuned:
        loss = loss_of(stage.model(x), y)
        (scale(loss) if scale is not None else loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    if trial.iterations:
        # it is what it is: once it was judged nothing is left to do
        raise StopTrial(JUDGED)
    with evaluating(stage.model), torch.no_grad():
        loss = loss_of(stage.model(x), y)
    if scale is not None:
        scale(loss)  # a GradScaler makes no step before it was given a loss
    for parameter in stage.model.parameters():
        parameter.grad = None if scale is None else torch.zeros_like(parameter)
    return loss


def _hold_still(model: nn.Module) -> None:
    """Let no optimizer of this process move the network; a weight decay would, at gradients of zero."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    own = list(model.parameters())

    def forget(*_: Any) -> None:
        for parameter in own:
            parameter.grad = None

    register_optimizer_step_pre_hook(forget)


def _started(model: nn.Module, path: Path, shape: tuple[int, ...]) -> nn.Module:
    """The network with the parameters that the user's own trial left."""
    import torch

    from darts_core.sample_inputs import draw_inputs, is_unbuilt, number_format

    if is_unbuilt(model):
        # loading gives such layers their weights, but not the sizes that they state
        place, kind = next(model.parameters()).device, number_format(model)
        with evaluating(model), torch.no_grad():
            model(draw_inputs(shape, 2, device=place, dtype=kind))
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            "The elastic trial starts from the network of your own trial, which is not there or is another "
            f"one ({first_line(error)[:200]})."
        ) from None
    return model


def _cut(model: nn.Module, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    from darts_core.checkpoint import load_checkpoint
    from darts_core.train.save import fit_to

    content = load_checkpoint(path)
    cut = {name: content[name] for name in ("replaced", "sizes")}
    return fit_to(model, content["state"], **cut), cut


def _in_search(stage: Stage, opened: Mapping[str, str]) -> None:
    from darts_core.autosearch.closing import watch
    from darts_core.autosearch.contract import current
    from darts_core.autosearch.elastic_family import ElasticFamily

    trial = current()
    stage.family = ElasticFamily(stage, trial, opened)
    trial.searchables.append(stage.family)
    watch(trial)
