"""The whole supernet at each precision against fp64, and searches that start from one file."""

import copy
import statistics

import pytest
import torch
import torch.nn.functional as F

from darts_core.checkpoint import load_checkpoint, save_checkpoint
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled

from .places import CPU, GPU, PLACES, alphas_of

SEEDS = 5
# the precision of the fused path, and what plain torch does that comes next to it
PRECISIONS = [
    pytest.param(CPU, "fp32", id="cpu", marks=pytest.mark.full),
    *(pytest.param(GPU, name, id=name, marks=pytest.mark.gpu) for name in ("fp32", "tf32", "bf16")),
]


@pytest.fixture
def products():
    """Sets whether torch's own products round to TF32; put back afterwards."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]

    def choose(precision):
        for backend in backends:
            backend.allow_tf32 = precision == "tf32"

    yield choose
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def gradients(net, x, y, *, autocast=False):
    """(loss, alpha gradients, params gradients in the module path's order), as fp64 vectors."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
        logits = net(x)
    loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y)
    loss.backward()
    # a net of one cell has no cell of the other kind
    moved = [alpha.grad for alpha in net.alphas() if alpha.grad is not None]
    alphas = torch.cat([grad.double().flatten() for grad in moved])
    named = dict(net.named_parameters())
    found = {name: p.grad for name, p in named.items()}
    # a packed cell leaves its state dict, and so its gradients, under the module path's names
    for name, cell in net.named_modules():
        if hasattr(cell, "packed"):
            grad = found.pop(f"{name}.packed")
            for b in cell.plan.params:
                found[f"{name}.{b.module}.{b.name}"] = grad[b.start : b.start + b.count]
    params = torch.cat([found[name].double().flatten() for name in sorted(found)])
    return loss.detach().double()[None], alphas, params


def error(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(("place", "precision"), PRECISIONS)
def test_gradients_of_the_whole_net(place, precision, products):
    """Median over the seeds of the error against fp64: at most 1.25 times that of plain torch."""
    errors = {"plain": [], "fast": []}
    for seed in range(SEEDS):
        net = place.net(seed=seed)
        x, y = place.batches(seed)[0]
        exact = gradients(copy.deepcopy(net).double(), x.double(), y)
        products(precision)
        plain = gradients(copy.deepcopy(net), x, y, autocast=precision == "bf16")
        net.use_path(place.fast, precision)
        fast = gradients(net, x, y)
        for kind, found in (("plain", plain), ("fast", fast)):
            errors[kind].append([error(f, e) for f, e in zip(found, exact, strict=True)])
    for i, what in enumerate(("loss", "alphas", "params")):
        plain, fast = (
            statistics.median(row[i] for row in errors[kind]) for kind in ("plain", "fast")
        )
        print(f"{place.device} {precision} {what}: plain {plain:.2e}, {place.fast} {fast:.2e}")
        if what != "loss":
            assert fast <= 1.25 * plain + 1e-6, what


@pytest.mark.parametrize(("place", "precision"), PRECISIONS)
def test_the_drift_of_a_search(place, precision, products):
    """After 20 steps: at most twice as far from the exact search as plain torch at that precision."""

    def searched(path, *, precision, double=False, autocast=False):
        products(precision)
        net = place.net()
        if double:
            net.double()
        net.use_path(path, precision)
        strategy = FirstOrder()
        settings = SearchSettings(
            alpha_learning_rate=0.01, precision="bf16" if autocast else "fp32"
        )
        strategy.setup(net, settings, [])
        for step in range(20):
            batches = place.batches(step)
            if double:
                batches = tuple((x.double(), y) for x, y in batches)
            strategy.step(*batches)
        return alphas_of(strategy)

    # on a GPU plain fp32 is the yardstick, on the CPU it is one of the rivals and fp64 the yardstick
    on_gpu = place.device == "cuda"
    exact = searched("plain", precision="fp32", double=not on_gpu or precision == "fp32")
    plain = searched("plain", precision=precision, autocast=precision == "bf16")
    fast = searched(place.fast, precision=precision)
    assert error(fast, exact) <= 2 * error(plain, exact) + 1e-5


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", [FirstOrder, Unrolled])
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_checkpoints_cross_paths_and_devices(place, make, space, products, tmp_path):
    """Written on the fast path, continued on every path of this device and of the CPU, alike."""
    products("fp32")
    net = place.net(space)
    net.use_path(place.fast, "fp32")
    strategy = make()
    strategy.setup(net, SearchSettings(alpha_learning_rate=0.01), [])
    for step in range(3):
        strategy.step(*place.batches(step))
    save_checkpoint(
        tmp_path / "a.pt", {"supernet": net.state_dict(), "strategy": strategy.state_dict()}
    )
    ends = {}
    targets = {(place.device, place.fast), (place.device, "plain")}
    targets |= {("cpu", "plain"), ("cpu", "batched")}
    for device, path in sorted(targets):
        other = place.net(space, seed=1).to(device)
        other.generator = None
        other.use_path(path, "fp32")
        again = make()
        again.setup(other, SearchSettings(alpha_learning_rate=0.01), [])
        content = load_checkpoint(tmp_path / "a.pt", device=device)
        other.load_state_dict(content["supernet"])
        again.load_state_dict(content["strategy"])
        for step in range(3, 5):
            again.step(*(tuple(t.to(device) for t in batch) for batch in place.batches(step)))
        ends[device, path] = alphas_of(again)
        back = {k: v.cpu() for k, v in other.state_dict().items()}
        assert back.keys() == content["supernet"].keys()
    for step in range(3, 5):
        strategy.step(*place.batches(step))
    here = alphas_of(strategy)
    # Adam's step has the size of the rate whatever the gradient's: compare with two of them
    for (device, path), found in ends.items():
        tolerance = 1e-6 if (device, path) == (place.device, place.fast) else 2e-3
        assert (found - here).abs().max() <= tolerance, f"{device}, {path}"
