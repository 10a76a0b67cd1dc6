"""Contract tests for extension authors: subclass a class in a test file, supply its fixture, run pytest.

    class TestMyOperation(OperationContract):
        @pytest.fixture
        def operation(self):
            return "my_op"

Our own operations, spaces, relaxations, strategies and data sets pass the same tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.architecture import Architecture
from darts_core.data import DataBundle, RawData, make_bundle
from darts_core.data.contract import DatasetContract
from darts_core.ops import create_op
from darts_core.ops.primitives import Primitive
from darts_core.relax import Relaxation, Softmax
from darts_core.search import SearchConfig, SearchResult, search
from darts_core.spaces import SearchSpace, get_space
from darts_core.strategies import Strategy
from darts_core.supernet import Supernet, build, create_supernet
from darts_core.supernet.build import height_of
from darts_core.tasks.contract import TaskContract

__all__ = [
    "DatasetContract",
    "OperationContract",
    "RelaxationContract",
    "SpaceContract",
    "StrategyContract",
    "TaskContract",
    "tiny_bundle",
]


def tiny_bundle(count: int = 60, size: int = 8, channels: int = 3) -> DataBundle:
    """A made-up data set of three classes that differ in brightness, for tests of a second."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = rng.integers(0, 160, (count, channels, size, size)).astype(np.uint8)
    images += (labels * 45).astype(np.uint8)[:, None, None, None]
    return make_bundle("tiny", RawData(images, labels, ("a", "b", "c"), "tiny")).without_test()


class OperationContract:
    """What every operation must fulfil; fixture `operation`: its registered name."""

    channels = 4

    def test_shape_at_both_strides(self, operation: str) -> None:
        """[B, C, H, W] becomes [B, C, ceil(H / stride), ceil(W / stride)], odd sizes included."""
        for stride in (1, 2):
            op = create_op(operation, self.channels, stride, affine=True)
            for height, width in ((8, 8), (7, 5)):
                out = op(torch.randn(2, self.channels, height, width))
                expected = (2, self.channels, -(-height // stride), -(-width // stride))
                assert tuple(out.shape) == expected
                assert torch.isfinite(out).all()

    def test_gradients_are_finite(self, operation: str) -> None:
        """Every parameter, and the input where it counts, gets a finite gradient."""
        torch.manual_seed(0)
        op = create_op(operation, self.channels, 1, affine=True)
        x = torch.randn(2, self.channels, 6, 6, requires_grad=True)
        out = op(x)
        if not out.requires_grad:
            assert not list(op.parameters())
            return
        leaves = [x, *op.parameters()]
        gradients = torch.autograd.grad(
            (out * torch.randn_like(out)).sum(), leaves, allow_unused=True
        )
        assert all(g is not None for g in gradients[1:]), "a parameter is not used"
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)

    def test_affine_is_obeyed(self, operation: str) -> None:
        """With affine=False no batch norm has parameters."""
        op = create_op(operation, self.channels, 1, affine=False)
        norms = [m for m in op.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(norm.weight is None for norm in norms)

    def test_primitives_are_declared_as_such(self, operation: str) -> None:
        """`primitives()`, where there is one, returns a list of primitives."""
        op = create_op(operation, self.channels, 1, affine=True)
        declare = getattr(op, "primitives", None)
        if declare is not None:
            found = declare()
            assert found
            assert all(isinstance(primitive, Primitive) for primitive in found)

    def test_runs_in_a_plain_network_in_evaluation_mode(self, operation: str) -> None:
        """Deterministic after training mode, unless it is random by nature."""
        op = create_op(operation, self.channels, 1, affine=True)
        x = torch.randn(2, self.channels, 6, 6)
        op(x)
        op.eval()
        torch.manual_seed(1)
        first = op(x)
        torch.manual_seed(1)
        assert torch.equal(first, op(x))


class SpaceContract:
    """What every space must fulfil; fixture `space`: the `SearchSpace`, registered under its name."""

    sizes: dict[str, Any] = {"channels": 4, "layers": 1, "num_classes": 3, "in_channels": 3}
    image_size = 8
    positions = 32

    def input_shape(self, space: SearchSpace) -> tuple[int, ...]:
        """The shape of a sample as the space's networks read it."""
        channels, size = self.sizes["in_channels"], self.image_size
        shapes = {
            "image": (channels, size, size),
            "series": (channels, self.positions),
            "tokens": (self.positions,),
        }
        return shapes[space.reads]

    def batch(self, space: SearchSpace) -> Tensor:
        """Two random samples."""
        shape = self.input_shape(space)
        if space.reads == "tokens":
            return torch.randint(self.sizes["in_channels"], (2, *shape))
        return torch.randn(2, *shape)

    def output_shape(self, space: SearchSpace) -> tuple[int, ...]:
        """Of what a network gives for `batch`: a number for each class, for tokens at each position."""
        positions = self.input_shape(space) if space.reads == "tokens" else ()
        return (2, *positions, self.sizes["num_classes"])

    def test_random_architectures_are_of_the_space(self, space: SearchSpace) -> None:
        """They differ, survive their notation, and are found again by `discretize`."""
        drawn = [space.random(np.random.default_rng(seed)) for seed in range(20)]
        assert len(set(drawn)) > 1
        for architecture in drawn:
            assert architecture.space == space.name
            assert Architecture.from_dict(architecture.to_dict()) == architecture

    def test_discretize_takes_the_heaviest(self, space: SearchSpace) -> None:
        """Mixing weights that point to an architecture give it back."""
        supernet = create_supernet(space, input_shape=self.input_shape(space), **self.sizes)
        for seed in range(3):
            architecture = space.random(np.random.default_rng(seed))
            weights = {k: w.numpy() for k, w in supernet.one_hot(architecture).items()}
            assert space.discretize(weights) == architecture

    def test_supernet_runs_and_every_alpha_matters(self, space: SearchSpace) -> None:
        """A forward and backward pass reaches every alpha."""
        torch.manual_seed(0)
        supernet = create_supernet(space, input_shape=self.input_shape(space), **self.sizes)
        logits = supernet(self.batch(space))
        assert tuple(logits.shape) == self.output_shape(space)
        gradients = torch.autograd.grad(
            (logits * torch.randn_like(logits)).sum(), supernet.alphas()
        )
        assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)

    def test_plain_networks_run(self, space: SearchSpace) -> None:
        """`build` makes a network that maps samples to logits."""
        architecture = space.random(np.random.default_rng(0))
        # `sizes` may name the height itself
        height: dict[str, Any] = {"image_size": height_of(self.input_shape(space))}
        network = build(architecture, **(height | self.sizes))
        assert tuple(network(self.batch(space)).shape) == self.output_shape(space)


class RelaxationContract:
    """What every relaxation must fulfil; fixture `relaxation`: an instance."""

    def _alpha(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        free = torch.randn(6, 5, requires_grad=True)
        mask = torch.zeros(6, 5, dtype=torch.bool)
        mask[2, 1] = mask[4, 0] = True
        return free, mask

    def test_weights_are_finite_and_differentiable(self, relaxation: Relaxation) -> None:
        """Shape [E, K], not negative, gradient to alpha; nothing to a disallowed operation."""
        free, mask = self._alpha()
        alpha = free.masked_fill(mask, float("-inf"))
        weights = relaxation.weights(alpha, 0.5, torch.Generator().manual_seed(0))
        assert weights.shape == alpha.shape
        assert torch.isfinite(weights).all()
        assert (weights.detach() >= -1e-6).all()
        assert (weights[mask] == 0).all()
        (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), free)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
        assert (gradient[mask] == 0).all()

    def test_the_generator_decides(self, relaxation: Relaxation) -> None:
        """The same state gives the same weights; progress may be a number or a tensor."""
        alpha = self._alpha()[0].detach()
        generator = torch.Generator().manual_seed(3)
        before = generator.get_state()
        first = relaxation.weights(alpha, 0.25, generator)
        again = relaxation.weights(alpha, torch.tensor(0.25), torch.Generator().manual_seed(3))
        torch.testing.assert_close(first, again)
        assert relaxation.samples == (not torch.equal(generator.get_state(), before))

    def test_evaluation_is_deterministic(self, relaxation: Relaxation) -> None:
        """`evaluate` draws nothing, and prefers the operation with the larger alpha."""
        alpha = torch.tensor([[0.0, 3.0, -1.0]])
        assert torch.equal(relaxation.evaluate(alpha), relaxation.evaluate(alpha))
        assert int(relaxation.evaluate(alpha).argmax()) == 1


class StrategyContract:
    """What every strategy must fulfil; fixture `make_strategy`: a callable without arguments.

    Override `space` and `make_relaxation` for a strategy that needs others. `path` says how the cells
    run, see `Supernet.use_path`: by default as in the command.
    """

    space = "nasbench201"
    path = "auto"
    layers = 1
    epochs = 2
    batch_size = 8

    def make_relaxation(self) -> Relaxation:
        """The relaxation to search with."""
        return Softmax()

    def _search(
        self, make_strategy: Callable[[], Strategy], checkpoint: Path | None, stop_after: int | None
    ) -> tuple[SearchResult, Supernet]:
        torch.manual_seed(0)
        bundle = tiny_bundle()
        supernet = create_supernet(
            get_space(self.space),
            channels=2,
            layers=self.layers,
            num_classes=bundle.num_classes,
            in_channels=3,
            relaxation=self.make_relaxation(),
            image_size=8,
        )
        # choices in ordinary modules have one path only
        if isinstance(supernet, Supernet):
            supernet.use_path(self.path)
        steps = 0

        def stop() -> bool:
            nonlocal steps
            steps += 1
            return steps == stop_after

        result = search(
            supernet,
            make_strategy(),
            bundle,
            SearchConfig(epochs=self.epochs, batch_size=self.batch_size, alpha_learning_rate=0.05),
            checkpoint=checkpoint,
            should_stop=stop,
        )
        return result, supernet

    def test_a_resumed_search_equals_an_uninterrupted_one(
        self, make_strategy: Callable[[], Strategy], tmp_path: Path
    ) -> None:
        """Stopped inside an epoch and resumed, the search ends with the same bits as without a stop."""
        whole, first = self._search(make_strategy, None, None)
        steps = whole.steps
        path = tmp_path / "checkpoint.pt"
        self._search(make_strategy, path, steps // 2 + 1)
        resumed, second = self._search(make_strategy, path, None)
        assert resumed.architecture == whole.architecture
        assert resumed.steps == steps
        assert [row["train_loss"] for row in resumed.history] == [
            row["train_loss"] for row in whole.history
        ]
        for (name, a), b in zip(
            first.state_dict().items(), second.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), f"{name} differs after the resume"

    def test_it_ends_with_an_architecture_of_the_space(
        self, make_strategy: Callable[[], Strategy]
    ) -> None:
        """Losses are finite, something moved, and the architecture can be built."""
        torch.manual_seed(0)
        result, supernet = self._search(make_strategy, None, None)
        assert result.architecture.space == self.space
        assert all(math.isfinite(row["train_loss"]) for row in result.history)
        assert len({row["train_loss"] for row in result.history}) == self.epochs
        network = build(result.architecture, channels=2, layers=self.layers, num_classes=3)
        assert network(torch.randn(2, 3, 8, 8)).shape == (2, 3)
        if make_strategy().moves_alpha:
            assert all(alpha.detach().std() > 0 for alpha in supernet.alphas())
