"""Search without gradients of alpha: architectures are trained alone, and the best is taken."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import ConfigError, NonFiniteLossError
from darts_core.modes import in_evaluation
from darts_core.settings import Bounds, bounded
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.strategies.base import Batch, Forward, StepStats, Strategy
from darts_core.strategies.optimizers import load_optimizer, params_optimizer
from darts_core.supernet import ModuleSupernet, build
from darts_core.supernet.finite import all_finite

__all__ = ["RandomSearch", "RegularizedEvolution", "mutate"]

log = logging.getLogger("darts_core")


class RandomSearch(Strategy):
    """Random architectures, each trained from scratch for an equal share of the epochs.

    An epoch here costs one pass over the params split, as it does for gradient strategies, so equal
    epochs are an equal budget of images (a plain network's pass is cheaper than a supernet's). A candidate
    whose loss becomes NaN or infinite is worse than all others; the search goes on with the next one.

    Source: Li and Talwalkar (arXiv:1902.07638), section 3 (random search as the baseline).

    Epochs that make no equal share for all candidates are left out: the search ends with the last one.

    Args:
        candidates: architectures to train; fewer when there are fewer epochs.

    Raises:
        ConfigError: `candidates` is below 1.
    """

    needs_alpha_batch = False
    capturable = False
    moves_alpha = False

    @bounded(candidates=Bounds(low=1, high=1_000_000))
    def __init__(self, candidates: int = 10) -> None:
        self.candidates = candidates
        self.history: list[tuple[float, Architecture]] = []
        self.candidate: Architecture | None = None
        self.network: nn.Module | None = None
        self.measured = False
        # on the device of the candidate: no step waits for it
        self.diverged = torch.zeros((), dtype=torch.bool)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Begin the next candidate when its turn has come; its learning rate decays by cosine."""
        length = self._length(epochs)
        rest = epochs - length * self.candidates
        if epoch == 0 and rest > 0:
            log.info(
                "%d candidates of %d epochs each: %d of the %d epochs are left out",
                self.candidates, length, rest, epochs,
            )  # fmt: skip
        if self.network is None or self.measured:
            self._begin(self.propose(self._rng()))
        settings = self.settings
        low, high = settings.min_learning_rate, settings.learning_rate
        within = self.schedule_position(epoch, epochs)
        super().set_learning_rate(low + (high - low) * (1 + math.cos(math.pi * within)) / 2)
        if self.network is not None:
            self.network.train()

    def schedule_position(self, epoch: int, epochs: int) -> float:
        """The learning rate decays anew for every candidate."""
        length = self._length(epochs)
        return (epoch % length) / length

    def _length(self, epochs: int) -> int:
        """Epochs of each candidate."""
        return max(1, epochs // self.candidates)

    @property
    def finished(self) -> bool:  # type: ignore[override]
        """Whether as many candidates as wanted are measured."""
        return self.measured and len(self.history) >= self.candidates

    def _rng(self) -> np.random.Generator:
        generator = self.supernet.generator
        seed = generator.initial_seed() if generator is not None else 0
        return np.random.default_rng((seed, len(self.history)))

    def propose(self, rng: np.random.Generator) -> Architecture:
        """The next candidate: a random one."""
        return self.supernet.space.random(rng)

    def _begin(self, architecture: Architecture) -> None:
        self.candidate, self.measured = architecture, False
        network, device = fresh_network(self.supernet, architecture), self.supernet.progress.device
        self.network, self.diverged = network.to(device), self.diverged.new_zeros((), device=device)
        if self.common is not None:
            self.common(network)
        self.params = [param for param in network.parameters() if param.requires_grad]
        self.optimizer = params_optimizer(
            self.params,
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )

    def set_learning_rate(self, value: float) -> None:
        """Ignored: every candidate has a whole schedule of its own."""

    def step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Train the candidate on one batch; a loss that is not finite, which ends a search, is told as 0."""
        loss, score = self.params_step(params_batch)
        self.diverged = self.diverged | ~torch.isfinite(loss)
        nothing = torch.zeros_like(loss)
        return StepStats(torch.where(self.diverged, nothing, loss), score, nothing, nothing)

    def params_weights(self, batch: Batch) -> dict[str, Tensor]:
        """None: a plain network has no mixing weights."""
        return {}

    def loss(self, batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The candidate's loss and outputs."""
        if self.network is None:
            raise ConfigError("The strategy has no candidate yet; call start_epoch first.")
        images, targets = batch
        enabled = self.settings.precision == "bf16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=enabled):
            logits = self.network(images)
        return self.task_loss(logits, targets), logits

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Measure a candidate whose time is over.

        Raises:
            NonFiniteLossError: the search is over, and all candidates diverged.
        """
        over = (epoch + 1) % self._length(epochs) == 0 or epoch + 1 == epochs
        if over and self.candidate is not None:
            self.history.append((self._worth(self.candidate), self.candidate))
            self.measured = True
        worths = [worth for worth, _ in self.history]
        done = self.finished or epoch + 1 == epochs
        if done and worths and max(worths) == -math.inf:
            raise NonFiniteLossError(
                f"All {len(worths)} candidates diverged: their losses, or the metric, became NaN or "
                f"infinite. Try a smaller search.learning_rate (now {self.settings.learning_rate}), or "
                "search.precision=fp32."
            )

    def _worth(self, candidate: Architecture) -> float:
        """The metric of the candidate, more being better; below all others where it diverged."""
        # the last update may have gone astray after a finite loss
        bad = self.diverged | (self.network is not None and not all_finite(self.network))
        # in whichever process: all go on alike
        share = bad.float()
        self.reduce([share])
        worth = -math.inf if share else self.measure(self._forward())
        if worth == -math.inf:
            log.warning("candidate %d diverged: %s", len(self.history) + 1, candidate.text())
        return worth

    def _forward(self) -> Forward:
        network = self.network
        if network is None:
            raise ConfigError("The strategy has no candidate.")
        return in_evaluation(network)

    def current(self) -> Architecture:
        """The best candidate measured so far."""
        if not self.history:
            return self.candidate or self.supernet.discretize()
        return max(self.history, key=lambda pair: pair[0])[1]

    def predictor(self) -> Forward:
        """The network trained last."""
        if self.network is None:
            return super().predictor()
        return self._forward()

    def state_dict(self) -> dict[str, Any]:
        """The history and the candidate in training."""
        return {
            # of the candidate's params, which never lie packed as those of a supernet may
            "optimizer": self.optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "history": [[score, a.to_dict()] for score, a in self.history],
            "candidate": self.candidate.to_dict() if self.candidate else None,
            "network": self.network.state_dict() if self.network is not None else None,
            "measured": self.measured,
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.history = [(score, Architecture.from_dict(a)) for score, a in state["history"]]
        if state["candidate"] is None:
            return
        self._begin(Architecture.from_dict(state["candidate"]))
        if self.network is not None:
            self.network.load_state_dict(state["network"])
        self.measured = state["measured"]
        self.diverged = self.diverged | state.get("diverged", False)  # which older files lack
        load_optimizer(self.optimizer, state["optimizer"])
        load_optimizer(self.alpha_optimizer, state["alpha_optimizer"])


class RegularizedEvolution(RandomSearch):
    """Mutations of good candidates; the oldest of the population dies.

    Source: Real et al. (arXiv:1802.01548), Algorithm 1; population 100 and sample 25 there, smaller
    here because every candidate is trained.

    Args:
        candidates: architectures to train.
        population: the youngest so many may be parents.
        sample: the best of so many random members of the population is mutated.

    Raises:
        ConfigError: a number is below 1.
    """

    @bounded(population=Bounds(low=1, high=1_000_000), sample=Bounds(low=1, high=1_000_000))
    def __init__(self, candidates: int = 20, population: int = 8, sample: int = 3) -> None:
        super().__init__(candidates)
        self.population = population
        self.sample = sample

    def propose(self, rng: np.random.Generator) -> Architecture:
        """A random architecture until the population is full, then a mutated winner of a tournament."""
        if len(self.history) < self.population:
            return self.supernet.space.random(rng)
        alive = self.history[-self.population :]
        drawn = rng.integers(len(alive), size=self.sample)
        parent = max((alive[i] for i in drawn), key=lambda pair: pair[0])[1]
        return mutate(self.supernet.space, parent, rng)


def fresh_network(supernet: Any, architecture: Architecture) -> nn.Module:
    """The plain network of the architecture at the supernet's sizes, freshly initialised.

    What a user holds fast, such as a pretrained trunk, keeps its values: nobody would train them anew.
    """
    if not isinstance(supernet, ModuleSupernet):
        return build(architecture, **supernet.sizes, image_size=supernet.image_size)
    network = supernet.build(architecture)
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        own = list(module.parameters(recurse=False))
        held = bool(own) and not any(param.requires_grad for param in own)
        if callable(reset) and not held:
            reset()
    return network


def mutate(
    space: SearchSpace, architecture: Architecture, rng: np.random.Generator
) -> Architecture:
    """The architecture with one thing changed: an option, an edge's operation, or an edge's source.

    It is returned as it is where nothing else may be chosen.
    """
    if isinstance(space, ChoiceSpace):
        open_labels = [label for label, options in space.choices if len(options) > 1]
        if not open_labels:
            return architecture
        label = open_labels[rng.integers(len(open_labels))]
        others = [o for o in space.options(label) if o != architecture.choice(label)]
        picked = others[rng.integers(len(others))]
        changed = [(k, picked if k == label else v) for k, v in architecture.choices]
        return Architecture(architecture.space, choices=tuple(changed))
    kind = space.cell_kinds[rng.integers(len(space.cell_kinds))]
    cell = architecture.cell(kind)
    edges = list(cell.edges)
    i = int(rng.integers(len(edges)))
    source, target, op = edges[i]
    used = {s for s, t, _ in edges if t == target}
    allowed_EK = space.allowed(kind)
    if space.keep_edges is not None and "none" in space.ops:
        allowed_EK = allowed_EK & (np.array(space.ops) != "none")
    sources = [
        s for e, (s, t) in enumerate(space.edges)
        if t == target and s not in used and allowed_EK[e].any()
    ]  # fmt: skip
    if space.keep_edges is not None and sources and rng.random() < 0.5:
        source = sources[rng.integers(len(sources))]
    allowed = allowed_EK[space.edges.index((source, target))]
    choices = [space.ops[k] for k in np.flatnonzero(allowed) if space.ops[k] != op]
    if source == edges[i][0] and choices:
        op = choices[rng.integers(len(choices))]
    elif choices and not allowed[space.ops.index(op)]:
        op = choices[0]
    edges[i] = (source, target, op)
    order = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    cells = tuple(
        (name, CellChoice(tuple(order), c.concat) if name == kind else c)
        for name, c in architecture.cells
    )
    return Architecture(architecture.space, cells)
