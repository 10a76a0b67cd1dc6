"""What each of the processes of `test_distributed.py` does; results go to a file of its own."""

import contextlib
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from darts_core.distributed import current_group, join_group
from darts_core.distributed.sync_norm import SynchronizedNorm, synchronize_norms
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.fit import fit_elastic
from darts_core.search import SearchConfig
from darts_core.search.distributed import search_distributed
from darts_core.search.guards import GradientSimilarity
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, RandomSearch, SearchSettings, Unrolled
from darts_core.supernet import Supernet
from darts_core.supernet.paths import fuse, unfuse
from darts_core.tasks import Classification
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig, fit

SETTINGS = SearchSettings(grad_clip=0.0, learning_rate=0.05, alpha_learning_rate=0.01)


def supernet(seed=0):
    torch.manual_seed(seed)
    return Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3, in_channels=1)


def whole_batches():
    generator = torch.Generator().manual_seed(1)

    def draw():
        images = torch.randn(8, 1, 6, 6, dtype=torch.float64, generator=generator)
        return images, torch.randint(3, (8,), generator=generator)

    return [(draw(), draw()) for _ in range(2)]


def part(batch, rank, world):
    return tuple(side.chunk(world)[rank] for side in batch)


def state_after(strategy, net):
    place = (dist.get_rank(), dist.get_world_size())
    strategy.setup(net, SETTINGS)
    for params_batch, alpha_batch in whole_batches():
        strategy.step(part(params_batch, *place), part(alpha_batch, *place))
    unfuse(net)
    return [p.detach().clone() for p in [*net.parameters(), *net.alphas()]]


def trained(kind, group, checkpoint=None, on_epoch=None):
    """A network of `kind` after two epochs: (params, running statistics, rows, last module)."""
    # the first process's values count
    net = worker_net(kind, seed=group.rank if group else 0)
    config = TrainConfig(
        epochs=2, batch_size=8, learning_rate=0.1, weight_decay=0.1, grad_clip=0.3, ema=0.5,
        label_smoothing=0.1, flip=True, crop_padding=1, sync_batchnorm=kind == "batch norm",
    )  # fmt: skip
    result = fit(
        net, Double(tiny_bundle()), config, seed=3, group=group, checkpoint=checkpoint,
        on_epoch=on_epoch,
    )  # fmt: skip
    return plain(net), [*map(untimed, result.history)], str(net)


def shrunk(group):
    """A network after an elastic training: (params, running statistics, rows, last module)."""
    net = elastic(worker_net("batch norm"), torch.randn(2, 3, 8, 8, dtype=torch.float64))
    config = TrainConfig(epochs=2, batch_size=8, learning_rate=0.05, sync_batchnorm=True, ema=0.5)
    sandwich = Sandwich(net, drawn=1, seed=4, group=group)
    result = fit_elastic(net, Double(tiny_bundle()), config, sandwich, seed=3)
    return plain(net.model), [*map(untimed, result.history)], str(net.model)


def plain(net):
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def untimed(row):
    return {key: value for key, value in row.items() if key != "seconds"}


def worker_net(kind, seed=0):
    torch.manual_seed(seed)
    norms = {"batch norm": nn.BatchNorm2d, "no norm": lambda _: nn.Identity()}[kind]
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norms(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), norms(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    return net.double()


class Double:
    """A bundle of float64 images whose classes count differently."""

    task = Classification(outputs=3, names=("a", "b", "c"), weights=(1.0, 2.0, 5.0))

    def __init__(self, bundle):
        self.bundle = bundle

    def __getattr__(self, name):
        return getattr(self.bundle, name)

    def batches(self, *args, **options):
        return ((x.double(), y) for x, y in self.bundle.batches(*args, **options))


def summed(group):
    """The gradients of a param used by all, by the first and by nobody, summed over the processes."""
    params = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    params[0].grad = torch.full((2,), 1.0 + group.rank)
    if group.primary:
        params[1].grad = torch.tensor([7.0, 8.0])
    group.sum_gradients(params)
    return [None if param.grad is None else param.grad.tolist() for param in params]


def cut_short(kind, group, checkpoint):
    """`trained`, ended after its first epoch and taken up again."""

    def stop(epoch, row):
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        trained(kind, group, checkpoint, stop)
    return trained(kind, group, checkpoint)


def main(folder):
    join_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    group = current_group()
    found = {"summed": summed(group), "elastic": shrunk(group)}
    for case in ("batch norm", "no norm"):
        found[case] = trained(case, group)
    found["cut short"] = cut_short("batch norm", group, Path(folder) / "training.pt")
    for kind in (FirstOrder, Unrolled):
        for synchronized in (False, True):
            net = supernet().double()
            if synchronized:
                synchronize_norms(net)
            strategy = kind()
            strategy.reducer = current_group().average
            found[f"{kind.__name__}/{synchronized}"] = state_after(strategy, net)
        net = supernet().double()
        fuse(net)
        strategy = kind()
        strategy.reducer = current_group().average
        found[f"{kind.__name__}/batched"] = state_after(strategy, net)

    torch.manual_seed(3)
    x = torch.randn(8, 4, 5, 5, dtype=torch.float64)
    up = torch.randn(8, 4, 5, 5, dtype=torch.float64)
    own = x.chunk(world)[rank].clone().requires_grad_()
    norm = SynchronizedNorm(4).double()
    out = norm(own)
    (gradient,) = torch.autograd.grad((out * up.chunk(world)[rank]).sum(), own)
    found["norm"] = [out.detach(), gradient, norm.running_mean, norm.running_var]

    result = search_distributed(
        # the first process's values count
        Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3),
        FirstOrder(),
        tiny_bundle(),
        SearchConfig(epochs=2, batch_size=8, alpha_learning_rate=0.05),
        checkpoint=Path(folder) / "checkpoint.pt",
    )
    found["search"] = result.architecture.text()
    found["val_accuracy"] = result.val
    guarded = search_distributed(
        Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3),
        Unrolled(),
        tiny_bundle(),
        SearchConfig(epochs=3, batch_size=8),
        # fires after the second epoch: no similarity is so great
        guards=[GradientSimilarity(least=1.0, patience=2, stop=True)],
    )
    said = [(finding.epoch, finding.message) for finding in guarded.findings]
    found["guarded"] = repr((said, guarded.stopped, guarded.architecture.text()))
    # as scripts do that give each process other draws
    torch.manual_seed(rank)
    alone = RandomSearch(candidates=1)
    net = Supernet(get_space("nasbench201"), channels=2, layers=1, num_classes=3)
    config = SearchConfig(epochs=1, batch_size=8, evaluate=False)
    search_distributed(net, alone, tiny_bundle(), config, sync_batchnorm=True)
    found["candidate"] = [*alone.network.state_dict().values()]
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
