"""What each of the processes of `test_distributed.py` does; results go to a file of its own."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from darts_core.search import SearchConfig
from darts_core.search.distributed import average_gradients, join_group, search_distributed
from darts_core.search.guards import GradientSimilarity
from darts_core.search.sync_norm import SynchronizedNorm, synchronize_norms
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Unrolled
from darts_core.supernet import Supernet
from darts_core.supernet.paths import fuse, unfuse
from darts_core.testing import tiny_bundle

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


def main(folder):
    join_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    found = {}
    for kind in (FirstOrder, Unrolled):
        for synchronized in (False, True):
            net = supernet().double()
            if synchronized:
                synchronize_norms(net)
            strategy = kind()
            strategy.reducer = average_gradients
            found[f"{kind.__name__}/{synchronized}"] = state_after(strategy, net)
        net = supernet().double()
        fuse(net)
        strategy = kind()
        strategy.reducer = average_gradients
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
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
