"""Objectives of an augmentation policy search, made from a data bundle and a network.

They train on the split `params` and judge on `alpha`: `val` stays untouched for comparing the
policy found with others, and `test` for the final evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.augment.objectives import BilevelObjective, DensityObjective
from darts_core.train.config import TrainConfig
from darts_core.train.loop import fit

__all__ = ["bilevel_objective", "density_objective"]

Batch = tuple[Tensor, Tensor]


class _StepBatches:
    """step -> uint8 batch, the same for the same step; consecutive steps share an epoch's order."""

    def __init__(self, bundle: Any, split: str, batch_size: int, seed: int) -> None:
        self.bundle, self.split, self.batch_size, self.seed = bundle, split, batch_size, seed
        self.steps = bundle.steps(split, batch_size)
        self.expected = -1
        self.reader: Iterator[Batch] = iter(())

    def __call__(self, step: int) -> Batch:
        epoch, start = divmod(step, self.steps)
        if step != self.expected or start == 0:
            self.reader = self.bundle.batches(
                self.split, self.batch_size, seed=self.seed, epoch=epoch, start=start, pixels=True
            )
        self.expected = step + 1
        return next(self.reader)


def bilevel_objective(
    model: nn.Module,
    bundle: Any,
    *,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 0.025,
    train_on: str = "params",
    judge_on: str = "alpha",
    warm_up: TrainConfig | None = None,
    folder: Path | None = None,
) -> BilevelObjective:
    """The objective of `search_policy(method="gradient")`; the network is trained along with the policy.

    A fresh network gains by any clean image, so it teaches the policy to do nothing. `warm_up` trains
    it without a policy first, until it knows the images by heart, which is what a policy is against. The
    cost of that training belongs to the search.

    Args:
        model: a fresh network, moved to the bundle's device; use a copy of what is trained later.
        bundle: a `DataBundle`.
        batch_size: of training and validation batches.
        seed: of their order.
        learning_rate: constant, of the network.
        train_on: the split that is augmented and trained on.
        judge_on: the split whose loss the policy lowers.
        warm_up: the recipe of that first training, on `train_on`; its policy is left out. None: none.
        folder: holds the checkpoint of that training, so that an interrupted search does not repeat it.

    Raises:
        DataError: the batch is larger than a split.
    """
    if warm_up is not None:
        fit(
            model,
            bundle,
            replace(warm_up, policy=None),
            train_on=(train_on,),
            select_on=None,
            seed=seed,
            device=bundle.device,
            checkpoint=None if folder is None else folder / "warm_up.pt",
        )
    return BilevelObjective(
        model.to(bundle.device),
        _StepBatches(bundle, train_on, batch_size, seed),
        _StepBatches(bundle, judge_on, batch_size, seed + 1),
        bundle.normalize,
        learning_rate=learning_rate,
    )


def density_objective(
    make_model: Callable[[], nn.Module],
    bundle: Any,
    config: TrainConfig,
    *,
    folds: int = 1,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    draws: int = 1,
) -> DensityObjective:
    """The objective of `search_policy(method="density")`; trains one network a fold, without a policy.

    The cost of these trainings belongs to the search: each is as long as `config.epochs` on half of
    the training images.

    Args:
        make_model: a fresh network.
        bundle: a `DataBundle`.
        config: the recipe; its policy is left out.
        folds: 1 trains on params and judges on alpha; 2 does the reverse as well.
        folder: holds the networks' checkpoints, so that an interrupted search does not train again.
        seed: of the trainings and the draws.
        batch_size: of the judging passes.
        draws: how often each image is augmented anew.
    """
    plain = replace(config, policy=None)
    pairs: list[tuple[nn.Module, Callable[[], Iterable[Batch]]]] = []
    for fold, (train_on, judge_on) in enumerate((("params", "alpha"), ("alpha", "params"))[:folds]):
        torch.manual_seed(seed + fold)
        model = make_model().to(bundle.device)
        fit(
            model,
            bundle,
            plain,
            train_on=(train_on,),
            select_on=None,
            seed=seed + fold,
            device=bundle.device,
            checkpoint=None if folder is None else folder / f"fold{fold}.pt",
        )
        model.eval()
        pairs.append((model, _judged(bundle, judge_on, batch_size)))
    return DensityObjective(pairs, bundle.normalize, draws=draws, seed=seed)


def _judged(bundle: Any, split: str, batch_size: int) -> Callable[[], Iterable[Batch]]:
    """What yields the split's images; it can be sent to a worker process."""
    return partial(bundle.batches, split, batch_size, drop_last=False, shuffle=False, pixels=True)
