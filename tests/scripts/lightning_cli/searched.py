"""In the manner of a Lightning CLI: a sub-command, dotted options, a bar on the standard error."""

import argparse
import random
import sys

import torch
from torch import nn

from darts_core import autosearch


class LitModel(nn.Module):
    def __init__(self, lr=0.01, hidden=32):
        super().__init__()
        self.lr = lr
        width = autosearch.WidthChoice([hidden // 4, hidden // 2, hidden])
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), width, nn.Linear(hidden, 10)
        )
        self.layers = autosearch.searchable(self.layers, (1, 8, 8))

    def training_step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def validation_step(self, batch):
        x, y = batch
        return (self.layers(x).argmax(1) == y).float().mean().item()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class DataModule:
    def batches(self, count, seed):
        prototypes = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            y = torch.randint(10, (32,), generator=generator)
            yield prototypes[y] + 1.2 * torch.randn(32, 1, 8, 8, generator=generator), y


def fit(model, data, max_epochs):
    optimizer = model.configure_optimizers()
    for epoch in range(max_epochs):
        model.train()
        for step, batch in enumerate(data.batches(20, epoch)):
            loss = model.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar = "█" * ((step + 1) // 2) + " " * (10 - (step + 1) // 2)
            shown = (
                f"\rEpoch {epoch}: {5 * (step + 1)}%|{bar}| {step + 1}/20 [00:00<00:00, v_num=0, "
            )
            sys.stderr.write(shown + f"train_loss={loss.item():.3f}")
        model.eval()
        with torch.no_grad():
            found = [model.validation_step(batch) for batch in data.batches(8, 999)]
        sys.stderr.write(f", val_acc={sum(found) / len(found):.3f}]\n")


def cli(model_class, data_class):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="subcommand", required=True)
    command = commands.add_parser("fit")
    command.add_argument("--seed_everything", type=int, required=True)
    command.add_argument("--trainer.max_epochs", type=int, default=2, dest="max_epochs")
    command.add_argument("--model.lr", type=float, default=0.01, dest="lr")
    command.add_argument("--model.hidden", type=int, default=32, dest="hidden")
    given = parser.parse_args()
    random.seed(given.seed_everything)
    torch.manual_seed(given.seed_everything)
    model = model_class(given.lr, given.hidden)
    fit(model, data_class(), given.max_epochs)


if __name__ == "__main__":
    cli(LitModel, DataModule)
