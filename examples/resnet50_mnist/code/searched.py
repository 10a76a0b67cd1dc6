"""The original script: ResNet-50 on MNIST-like data."""

import argparse

import torch
from data import load
from torch import nn

from darts_core import autosearch

parser = argparse.ArgumentParser()
parser.add_argument("--data_url", default="/usr/share/datasets/fashion-mnist")
parser.add_argument("--images", type=int, default=4000)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--learning_rate", type=float, default=0.002)
parser.add_argument("--device", default="cpu")
args, _ = parser.parse_known_args()


def accuracy(model, split):
    model.eval()
    images, labels = split
    with torch.inference_mode():
        hits = [
            (
                model(images[i : i + 500].to(args.device)).argmax(1).cpu() == labels[i : i + 500]
            ).sum()
            for i in range(0, len(images), 500)
        ]
    model.train()
    return float(sum(hits)) / len(images)


def train():
    data = load(args.data_url, args.images)
    net = autosearch.ResNet50(autosearch.config["code"], in_channels=1, width=args.width)
    model = nn.Sequential(
        net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(net.out_channels, 10)
    ).to(args.device)
    images, labels = data["train"]
    steps = len(images) // args.batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, args.epochs * steps
    )
    for epoch in range(args.epochs):
        order = torch.randperm(len(images))
        for step in range(steps):
            batch = order[step * args.batch : (step + 1) * args.batch]
            loss = nn.functional.cross_entropy(
                model(images[batch].to(args.device)), labels[batch].to(args.device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        val = accuracy(model, data["val"])
        print(f"epoch {epoch + 1}: val accuracy {val:.4f}")
        autosearch.reporter(accuracy=val)
    torch.save(model.state_dict(), "model.pt")
    data_row = {"params": autosearch.count_params(model)}
    if autosearch.phase == "confirm":
        data_row["test_accuracy"] = accuracy(model, data["test"])
    latency = autosearch.latency_ms(model, images.shape[1:], batch=32)
    autosearch.report(val, latency=latency, model_path="model.pt", additional_data=data_row)


if __name__ == "__main__":
    train()
