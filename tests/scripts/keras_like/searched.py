"""In the manner of a Keras example: build, compile, fit; a bar of steps and one of validation on a line."""

import argparse
import sys

import torch
from torch import nn

from darts_core import autosearch


class Model:
    """Just enough of `fit` to print as Keras does."""

    def __init__(self, network):
        self.network = network

    def compile(self, learning_rate):
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def _pass(self, x, y, batch_size, show):
        losses, hits = 0.0, 0
        steps = len(x) // batch_size
        for step in range(steps):
            part = slice(step * batch_size, (step + 1) * batch_size)
            out = self.network(x[part])
            loss = nn.functional.cross_entropy(out, y[part])
            if self.network.training:
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            losses, hits = losses + loss.item(), hits + (out.argmax(1) == y[part]).sum().item()
            seen = (step + 1) * batch_size
            show(step + 1, steps, f"accuracy: {hits / seen:.4f} - loss: {losses / (step + 1):.4f}")
        return hits / (steps * batch_size), losses / steps

    def fit(self, x, y, batch_size, epochs, validation_data):
        for epoch in range(epochs):
            print(f"Epoch {epoch + 1}/{epochs}")

            def bar(step, steps, text):
                line = f"\x1b[1m{step}/{steps}\x1b[0m \x1b[32m{'━' * step}\x1b[0m\x1b[37m\x1b[0m"
                sys.stdout.write(f"\r{line} \x1b[1m0s\x1b[0m 3ms/step - {text}")

            def second(step, steps, text):
                sys.stdout.write(f"\x08\r{step}/{steps} - {text}")

            self.network.train()
            accuracy, loss = self._pass(x, y, batch_size, bar)
            self.network.eval()
            with torch.no_grad():
                found = self._pass(*validation_data, batch_size, second)
            steps = len(x) // batch_size
            text = f"accuracy: {accuracy:.4f} - loss: {loss:.4f}"
            text += f" - val_accuracy: {found[0]:.4f} - val_loss: {found[1]:.4f}"
            sys.stdout.write(
                f"\r{steps}/{steps} \x1b[32m{'━' * steps}\x1b[0m 0s 4ms/step - {text}\n"
            )


def data(count, seed):
    prototypes = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(10, (count,), generator=generator)
    return prototypes[y] + 0.8 * torch.randn(count, 1, 8, 8, generator=generator), y


parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float, default=1e-3)
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()

network = nn.Sequential(
    nn.Conv2d(1, 16, 3),
    nn.ReLU(),
    autosearch.WidthChoice([4, 8, 16]),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.1),
    nn.Linear(16 * 9, 10),
)
model = Model(autosearch.searchable(network, (1, 8, 8)))
model.compile(learning_rate=args.learning_rate)
model.fit(*data(640, 1), batch_size=32, epochs=args.epochs, validation_data=data(320, 2))
