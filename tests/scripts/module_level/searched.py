"""In the manner of a popular CIFAR script: everything at module level, a bar of `\\r` and backspaces."""

import argparse
import os
import sys

import torch
import torch.backends.cudnn as cudnn
from torch import nn, optim

from darts_core import autosearch

parser = argparse.ArgumentParser(description="PyTorch Training")
parser.add_argument("--lr", default=0.05, type=float, help="learning rate")
parser.add_argument("--resume", "-r", action="store_true", help="resume from checkpoint")
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
best_acc = 0
prototypes = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def loader(count, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        y = torch.randint(10, (32,), generator=generator)
        yield prototypes[y] + 0.8 * torch.randn(32, 3, 8, 8, generator=generator), y


def progress_bar(current, total, message):
    done = 30 * (current + 1) // total
    sys.stdout.write(" [" + "=" * done + ">" + "." * (30 - done) + "]")
    sys.stdout.write("  Step: 4ms | Tot: 20ms | " + message + " " * 20)
    sys.stdout.write("\b" * 60 + f" {current + 1}/{total} ")
    sys.stdout.write("\r" if current < total - 1 else "\n")
    sys.stdout.flush()


print("==> Building model..")
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, 1, 1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    autosearch.WidthChoice([4, 8, 16]),
    nn.Conv2d(16, 32, 3, 2, 1, bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    autosearch.WidthChoice([8, 16, 32]),
    nn.AdaptiveAvgPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 4, 10),
)
net = autosearch.searchable(net, (3, 8, 8)).to(device)
if device == "cuda":
    cudnn.benchmark = True

criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)


def run(epoch, training, steps):
    net.train(training)
    total_loss, correct, total = 0.0, 0, 0
    for step, (x, y) in enumerate(loader(steps, epoch if training else 999)):
        out = net(x.to(device))
        loss = criterion(out, y.to(device))
        if training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        total_loss += loss.item()
        total += len(y)
        correct += out.argmax(1).eq(y.to(device)).sum().item()
        acc = 100.0 * correct / total
        text = f"Loss: {total_loss / (step + 1):.3f} | Acc: {acc:.3f}% ({correct}/{total})"
        progress_bar(step, steps, text)
    return acc


for epoch in range(2):
    print(f"\nEpoch: {epoch}")
    run(epoch, True, 20)
    with torch.no_grad():
        acc = run(epoch, False, 6)
    scheduler.step()
    if acc > best_acc:
        print("Saving..")
        os.makedirs("checkpoint", exist_ok=True)
        torch.save({"net": net.state_dict(), "acc": acc, "epoch": epoch}, "checkpoint/ckpt.pth")
        best_acc = acc
