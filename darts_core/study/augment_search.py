"""Search for an augmentation policy, by gradient or by density matching, under one budget.

The objective is passed in and nothing here knows a data set:
* `gradient` moves the parameters of a relaxed policy. The objective is called with (augment, step):
  it augments a batch of its own with `augment(images)` and returns one loss an image, lower being
  better. If it has `after_step()`, that is called once the policy has moved; with `state_dict()` and
  `load_state_dict()` it takes part in a resume.
  `darts_core.augment.objectives.BilevelObjective` is such an objective.
* `density` asks Optuna for policies. The objective is called with a `Policy` and returns a score,
  higher being better: `DensityObjective`.

Importing this module loads neither torch nor optuna.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError
from darts_core.runlog import write_json
from darts_core.study.augment_density import density_search
from darts_core.study.augment_gradient import gradient_search
from darts_core.study.augment_result import PolicySearchResult
from darts_core.study.budget import Budget

__all__ = ["METHODS", "OPERATIONS", "PolicySearchResult", "search_policy"]

log = logging.getLogger("darts_core")

METHODS = ("gradient", "density")
OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "solarize",
    "posterize",
    "contrast",
    "brightness",
    "color",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def search_policy(
    objective: Callable[..., Any],
    *,
    method: str,
    folder: str | Path,
    budget: Budget,
    operations: Sequence[str] | None = None,
    channels: int = 3,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    length: int = 2,
    seed: int = 0,
    **options: Any,
) -> PolicySearchResult:
    """Search, and write `policy.yaml` and `policy_search.json` into `folder`.

    The same call on the same folder goes on where it was interrupted.

    Args:
        objective: see the head of this file.
        method: "gradient" or "density".
        folder: of the search.
        budget: trials bound the density search only; epochs (of `steps_per_epoch`) the gradient
            search only; device-seconds and trainings both.
        operations: registered names; None takes those of the published policies.
        channels: of the images; with 1, operations on colour are left out.
        ranges: operation -> (low, high) in place of the operation's own.
        length: operations a sub-policy, 1 or 2.
        seed: of the search.
        options: for gradient: steps_per_epoch (100), learning_rate (0.02, of Adam), temperature
            (0.5), keep (25 sub-policies), device ("cpu"). For density: sub_policies (5, a trial),
            keep (10, the best trials whose sub-policies are joined), workers (1), sampler ("tpe").

    Raises:
        TuneError: the method is unknown or the budget does not bound it.
        NonFiniteLossError: the objective returned NaN or an infinite number.
    """
    from darts_core.augment import policy_to_yaml

    folder = Path(folder)
    names = _operations(operations, channels)
    engines: dict[str, Callable[..., PolicySearchResult]] = {
        "gradient": gradient_search,
        "density": density_search,
    }
    if method not in engines:
        raise TuneError(f"Unknown policy search {method!r}. Choose {' or '.join(METHODS)}.")
    space = {"operations": names, "ranges": dict(ranges or {}), "length": length, "seed": seed}
    result = engines[method](objective, folder, budget, space, **options)
    policy_to_yaml(result.policy, result.path)
    write_json(folder / "policy_search.json", {"schema_version": 1, **result.to_dict()})
    log.info(
        "policy search (%s): %s after %.1f device-seconds; use it with augment=found augment.path=%s",
        method,
        result.ended,
        result.spent.device_seconds,
        result.path,
    )
    return result


def _operations(operations: Sequence[str] | None, channels: int) -> list[str]:
    from darts_core.augment import AUGMENTATIONS

    wanted = list(OPERATIONS if operations is None else operations)
    return [name for name in wanted if channels > 1 or not AUGMENTATIONS[name].colour]
