"""A Hydra app: settings in conf/, overrides a.b=1 on the command line, results in the log."""

import logging

import hydra
import torch
from omegaconf import DictConfig
from torch import nn

from darts_core import autosearch

log = logging.getLogger(__name__)


def batches(count, seed):
    prototypes = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        y = torch.randint(10, (32,), generator=generator)
        yield prototypes[y] + 1.2 * torch.randn(32, 64, generator=generator), y


def build(hidden):
    width = autosearch.WidthChoice([hidden // 4, hidden // 2, hidden])
    net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), width, nn.Linear(hidden, 10))
    return autosearch.searchable(net, (64,))


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    torch.manual_seed(cfg.seed)
    model = build(cfg.model.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.optimizer.lr)
    for epoch in range(cfg.epochs):
        model.train()
        for x, y in batches(20, epoch):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            found = [(model(x).argmax(1) == y).float().mean().item() for x, y in batches(8, 999)]
        log.info("epoch %d val_acc %.4f", epoch, sum(found) / len(found))


if __name__ == "__main__":
    main()
