"""What is recorded as a CUDA graph and what is not, with a recorder that always fails."""

import contextlib
import logging
import random
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from darts_core.augment import Augment
from darts_core.export.fused import FusedProgram
from darts_core.latency import samples
from darts_core.penalties import BudgetPenalty
from darts_core.relax import GumbelStraightThrough
from darts_core.search import SearchConfig, captured, search, stepping
from darts_core.search.captured import CapturedStep
from darts_core.spaces import get_space
from darts_core.strategies import (
    FirstOrder,
    OperationEarlyStopping,
    SearchSettings,
    SingleLevel,
    Unrolled,
)
from darts_core.supernet import Supernet
from darts_core.testing import tiny_bundle


def ready(strategy, relaxation=None):
    torch.manual_seed(0)
    space = get_space("nasbench201")
    net = Supernet(space, channels=2, layers=1, in_channels=1, relaxation=relaxation)
    net.generator = torch.Generator().manual_seed(3)
    strategy.setup(net, SearchSettings(), [])
    return strategy


class Counting(FirstOrder):
    """A researcher's: it counts in Python, and says nothing of graphs."""

    count = 0

    def alpha_step(self, params_batch, alpha_batch):
        self.count += 1
        return super().alpha_step(params_batch, alpha_batch)


class Told(Counting):
    capturable = True


class OfUnrolled(Unrolled):
    pass


def batches():
    generator = torch.Generator().manual_seed(1)
    return tuple(
        (torch.randn(4, 1, 6, 6, generator=generator), torch.randint(10, (4,), generator=generator))
        for _ in range(2)
    )


def on_a_gpu(strategy):
    """A step that believes it runs on a GPU."""
    step = CapturedStep(strategy, batches())
    step._on_gpu = True
    step._static = [t.clone() for batch in batches() for t in batch]
    return step


class Stream:
    def __init__(self, *_):
        pass

    def wait_stream(self, _):
        pass


@contextlib.contextmanager
def refuse(_, stream, capture_error_mode):
    assert isinstance(stream, Stream)
    assert capture_error_mode == "thread_local", "a loader's thread may pin a batch meanwhile"
    yield
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def no_graphs(monkeypatch):
    """The CUDA calls of a recording, which fails at its end."""
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", refuse)


def state_of(strategy):
    values = strategy.supernet.state_dict().values()
    return torch.cat([value.double().flatten() for value in values])


@pytest.mark.parametrize("make", [FirstOrder, Unrolled])
def test_a_failed_recording_leaves_no_trace(no_graphs, caplog, make):
    caplog.set_level(logging.INFO, logger="darts_core")
    relaxation = GumbelStraightThrough() if make is FirstOrder else None
    one, two = ready(make(), relaxation), ready(make(), relaxation)
    recorded = on_a_gpu(one)
    for _ in range(2):
        recorded(*batches())
        two.step(*batches())
    assert torch.equal(state_of(one), state_of(two))
    assert caplog.text.count("cannot be recorded") == 1
    assert not recorded._graphs


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(())])
def test_a_network_that_draws_on_the_host_is_not_recorded(no_graphs, caplog, draw):
    """As one that drops layers by Python's random numbers does: a graph would repeat one draw for ever."""
    caplog.set_level(logging.INFO, logger="darts_core")
    strategy = ready(FirstOrder())

    def hook(*_):
        draw()

    strategy.supernet.register_forward_pre_hook(hook)
    step = on_a_gpu(strategy)
    step(*batches())
    assert "it draws random numbers on the host" in caplog.text
    assert not step._graphs


def test_a_step_without_its_graph_has_the_memory_of_the_failed_recording(monkeypatch):
    strategy = ready(FirstOrder())
    step, usual, left = on_a_gpu(strategy), strategy.step, []

    def record():
        activations = torch.zeros(1)
        left.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    def plain(*batches):
        left.append(left[0]())
        return usual(*batches)

    monkeypatch.setattr(step, "_record", record)
    monkeypatch.setattr(strategy, "step", plain)
    step(*batches())
    assert left[1:] == [None]


def test_timings_and_exports_record_on_a_stream_of_the_device_at_hand(monkeypatch, no_graphs):
    """Torch's own is of the first device that a process recorded on; on another nothing would be recorded."""
    streams = []

    def graph(_, stream, capture_error_mode):
        streams.append((type(stream), capture_error_mode))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None))
    samples.captured(lambda: None)
    program = SimpleNamespace(
        device=torch.device("cpu"), dtype=torch.float32, _run=lambda x, side_by_side: x
    )
    FusedProgram._capture(program, torch.zeros(1, 3, 2, 2))
    # and other threads, which pin batches, may go on meanwhile
    assert streams == [(Stream, "thread_local")] * 2


@pytest.mark.parametrize("strategy", [FirstOrder, SingleLevel])
def test_augmentation_inside_the_step_is_that_outside(monkeypatch, strategy):
    """A step that prepares its own images ends with the same bits as one that is given them."""

    def searched():
        torch.manual_seed(0)
        space = get_space("nasbench201")
        net = Supernet(space, channels=2, layers=1, num_classes=3)
        augment = Augment(crop_padding=2, flip=True, cutout=3)
        search(
            net, strategy(), tiny_bundle(), SearchConfig(epochs=2, batch_size=8), augment=augment
        )
        return net.state_dict()

    outside = searched()
    pixels = []

    class Inside(CapturedStep):
        def __call__(self, params_batch, alpha_batch):
            pixels.append(params_batch[0].dtype)
            return super().__call__(params_batch, alpha_batch)

    monkeypatch.setattr(stepping.Stepper, "captures", True)
    monkeypatch.setattr(stepping, "CapturedStep", Inside)
    inside = searched()
    assert set(pixels) == {torch.uint8}
    assert all(torch.equal(inside[name], value) for name, value in outside.items())


def test_a_search_that_has_ended_holds_no_graph(monkeypatch):
    """Finalists are trained next, beside the strategy, and need the memory of a whole step."""
    made = []

    class Seen(CapturedStep):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(stepping.Stepper, "captures", True)
    monkeypatch.setattr(stepping, "CapturedStep", Seen)
    net, strategy = (
        Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3),
        FirstOrder(),
    )
    search(net, strategy, tiny_bundle(), SearchConfig(epochs=1, batch_size=8))
    assert strategy.evaluator is not None
    assert [seen() for seen in made] == [None]


def test_a_policy_stays_outside(monkeypatch):
    monkeypatch.setattr(stepping.Stepper, "captures", True)
    config = SearchConfig(batch_size=8)
    made = [
        stepping.Stepper(strategy, tiny_bundle(), config, 0, augment).later[0]
        for strategy, augment in [
            (FirstOrder(), Augment(flip=True)),
            (FirstOrder(), None),
            (FirstOrder(), Augment(policy=lambda images, generator: images)),
            (FirstOrder(), lambda images, generator: images),
            (OperationEarlyStopping(), Augment(flip=True)),
        ]
    ]
    assert [preparation is not None for preparation in made] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("strategy", "relaxation"),
    [
        (OperationEarlyStopping(), None),
        (Unrolled(), GumbelStraightThrough()),
        (Counting(), None),
        (OfUnrolled(), None),
    ],
)
def test_what_decides_on_the_host_or_needs_one_draw_is_not_recorded(
    no_graphs, caplog, strategy, relaxation
):
    caplog.set_level(logging.INFO, logger="darts_core")
    step = on_a_gpu(ready(strategy, relaxation))
    before = state_of(strategy)
    for _ in range(2):
        step(*batches())
    assert not torch.equal(state_of(strategy), before)
    assert caplog.text.count("decides on the host") == 1
    assert "cannot be recorded" not in caplog.text


def test_each_class_says_for_itself_whether_its_step_may_be_recorded():
    kinds = (FirstOrder, Counting, Told, ready(Unrolled()), ready(OfUnrolled()))
    assert [kind.capturable for kind in kinds] == [True, False, True, True, False]


def test_a_rebuilt_supernet_gets_new_graphs_and_the_old_ones_go(monkeypatch):
    """Not even an optimizer at the address of the one before it meets a graph of that one."""
    strategy = ready(FirstOrder())
    step = on_a_gpu(strategy)
    recorded = []

    class Graph:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def replay(self):
            assert self.optimizer is strategy.optimizer, "a graph of tensors that are gone"

    def record():
        recorded.append(Graph(strategy.optimizer))
        return recorded[-1], None

    monkeypatch.setattr(step, "_record", record)
    # every number that a program could take for the optimizer's is the same
    monkeypatch.setattr(captured, "id", lambda _: 7, raising=False)
    for rebuilt in range(3):
        step(*batches())
        step(*batches())
        assert len(recorded) == rebuilt + 1
        assert list(step._graphs.values()) == [(recorded[-1], None)]
        strategy.optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


class Total:
    """A cost of one for each edge."""

    unit = "ms"

    def __call__(self, weights):
        return weights["cell"].sum()


def test_a_failed_recording_leaves_the_multiplier_of_a_budget(no_graphs):
    one, two = ready(FirstOrder()), ready(FirstOrder())
    for strategy in (one, two):
        strategy.penalties = [BudgetPenalty(Total(), budget=1.0)]
    recorded = on_a_gpu(one)
    for _ in range(2):
        recorded(*batches())
        two.step(*batches())
    assert float(two.penalties[0].multiplier) > 0
    assert torch.equal(one.penalties[0].multiplier, two.penalties[0].multiplier)
