"""In the manner of the classic MNIST example: strict argparse, a class Net, a line a test epoch."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn, optim

from darts_core import autosearch


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 24, 3, padding=1)
        self.width = autosearch.WidthChoice([4, 8, 16])
        self.fc = nn.Linear(24 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(self.width(F.relu(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)


def batches(count, seed):
    prototypes = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        y = torch.randint(10, (32,), generator=generator)
        yield prototypes[y] + 0.8 * torch.randn(32, 1, 8, 8, generator=generator), y


def train(args, model, device, optimizer, epoch):
    model.train()
    for step, (x, y) in enumerate(batches(args.steps, epoch)):
        optimizer.zero_grad()
        loss = F.nll_loss(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"Train Epoch: {epoch} [{32 * step}/{32 * args.steps}]\tLoss: {loss.item():.6f}")


def test(model, device):
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in batches(10, 999):
            correct += (model(x.to(device)).argmax(1) == y.to(device)).sum().item()
    print(f"\nTest set: Accuracy: {correct}/320 ({100.0 * correct / 320:.0f}%)\n")


def main():
    parser = argparse.ArgumentParser(description="digits")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-accel", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cpu")
    model = autosearch.searchable(Net(), (1, 8, 8)).to(device)
    optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    for epoch in range(1, args.epochs + 1):
        train(args, model, device, optimizer, epoch)
        test(model, device)


if __name__ == "__main__":
    main()
