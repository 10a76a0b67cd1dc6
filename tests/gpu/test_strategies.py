"""Every strategy on the fast path: many steps, nothing but finite numbers, no wait for the device."""

import contextlib

import numpy as np
import pytest
import torch

from darts_core.augment import Augment
from darts_core.data import RawData, make_bundle
from darts_core.search import SearchConfig, search, stepping
from darts_core.search.captured import CapturedStep
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.supernet import Supernet
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.packed import PackedCell

from .places import PLACES, RELAXATIONS, STRATEGIES, alphas_of, evaluator, made
from .waits import host_waits

# these decide on the host in every step, or train networks of their own: no kernel of ours waits
ON_THE_HOST = {"rsps", "random_search", "regularized_evolution", "zero_cost"}


def ready(place, strategy, space="darts", relaxation=None, **options):
    net = place.net(space, relaxation, path=place.fast, **options)
    strategy.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
    strategy.evaluator = evaluator(place, net)
    strategy.alpha_active = True
    strategy.start_epoch(0, 2)
    return strategy


def many_steps(place, strategy, *, waits: bool):
    """`place.steps` steps of the first epoch, then its end and one step of the next."""
    net = strategy.supernet
    data = [place.batches(step) for step in range(4)]
    step = CapturedStep(strategy, data[0])
    losses = [step(*data[i]).params_loss.clone() for i in range(2)]  # records, compiles

    def work():
        for i in range(place.steps):
            losses.append(step(*data[i % 4]).params_loss.clone())

    on_gpu = place.device == "cuda"
    if waits or not on_gpu:
        work()
    else:
        found = host_waits(work)
        assert not found, f"the host waited: {sorted(set(found))}"
    strategy.end_epoch(0, 2)
    strategy.alpha_active = True
    net.progress.fill_(0.5)
    strategy.start_epoch(1, 2)
    losses.append(step(*data[0]).params_loss.clone())
    strategy.end_epoch(1, 2)
    assert torch.isfinite(torch.stack(losses)).all()
    assert all(torch.isfinite(alpha).all() for alpha in net.alphas())
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())
    cells = [module for module in net.modules() if isinstance(module, SearchCell)]
    assert cells
    assert all(isinstance(cell, PackedCell) for cell in cells)
    assert bool(step._graphs) == (on_gpu and strategy.capturable)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies(place, name):
    strategy = made("strategy", name)
    before = alphas_of(ready(place, strategy))
    many_steps(place, strategy, waits=name in ON_THE_HOST)
    if strategy.moves_alpha:
        after = alphas_of(strategy)
        assert after.shape != before.shape or (after - before).abs().max() > 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_relaxations(place, space, name):
    many_steps(place, ready(place, FirstOrder(), space, made("relax", name)), waits=False)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", [FirstOrder, Unrolled])
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_both_orders_are_one_graph(place, space, make):
    """A step that is replayed moves everything as one that is not."""
    found = []
    for captured in (True, False):
        strategy = ready(place, make(), space)
        step = CapturedStep(strategy, place.batches(0)) if captured else strategy.step
        for i in range(5):
            step(*place.batches(i))
        if captured and place.device == "cuda":
            assert len(step._graphs) == 1
            assert not step._broken
        state = strategy.supernet.state_dict()
        found.append(torch.cat([v.detach().double().cpu().flatten() for v in state.values()]))
    # the head's library calls may sum in another order
    torch.testing.assert_close(found[0], found[1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_a_search_with_augmentation_is_the_same_recorded_and_not(place, relaxation, monkeypatch):
    """Augmentation and draws inside the graph are those outside it: order, crops, mirrors, holes, samples."""
    kept = []

    class Kept(CapturedStep):
        def __init__(self, *given):
            super().__init__(*given)
            kept.append(self)

    monkeypatch.setattr(stepping, "CapturedStep", Kept)
    rng = np.random.default_rng(0)
    count, side = 12 * place.batch, max(8, place.side)
    images = rng.integers(0, 256, (count, 3, side, side)).astype(np.uint8)
    raw = RawData(images, np.arange(count) % 3, ("a", "b", "c"), "noise")
    bundle = make_bundle("noise", raw, device=place.device).without_test()
    ends = []
    for capture in (True, False):
        torch.manual_seed(0)
        net = Supernet(
            get_space("nasbench201"), channels=4, layers=1, num_classes=3,
            relaxation=made("relax", relaxation),
        ).to(place.device)  # fmt: skip
        net.use_path(place.fast, "fp32")
        config = SearchConfig(epochs=2, batch_size=place.batch, capture=capture, evaluate=False)
        found = search(
            net, FirstOrder(), bundle, config, augment=Augment(crop_padding=2, flip=True, cutout=2)
        )
        values = net.state_dict().values()
        ends.append(torch.cat([v.detach().double().cpu().flatten() for v in values]))
        assert all(np.isfinite(row["train_loss"]) for row in found.history)
    assert all(step._graphs for step in kept)
    assert bool(kept) == (place.device == "cuda")
    # other crops or draws would move far more than the order of a library's sums
    torch.testing.assert_close(ends[0], ends[1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["first_order", "unrolled", "lambda_darts", "smooth_adversarial"])
def test_the_debug_mode_of_torch_agrees(place, name):
    """The library's own watch over synchronisations, for what the profile may call by another name."""
    strategy = ready(place, made("strategy", name))
    data = place.batches(0)
    strategy.step(*data)
    on_gpu = place.device == "cuda"
    watch = forbidden_waits() if on_gpu else contextlib.nullcontext()
    with watch:
        stats = strategy.step(*data)
    assert torch.isfinite(stats.params_loss)


@contextlib.contextmanager
def forbidden_waits():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_wait_is_noticed():
    x = torch.ones(3)
    assert host_waits(lambda: x.sum().item()) == ["aten::_local_scalar_dense"]
    assert host_waits(lambda: (x * 2).sum()) == []
