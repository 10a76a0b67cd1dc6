"""Images and labels in IDX files (MNIST, Fashion-MNIST), or scikit-learn's small digits."""

import gzip
from pathlib import Path

import numpy as np
import torch


def _idx(path: Path) -> torch.Tensor:
    with gzip.open(path) as stream:
        data = stream.read()
    dimensions = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return torch.from_numpy(values.copy())


def load(folder: str, images: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Train (`images` of them), val (half as many) and test: images [N, 1, H, W] in 0..1, labels."""
    validation = max(1, images // 2)
    if folder == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = torch.tensor(x.reshape(-1, 1, 8, 8) / 16.0, dtype=torch.float32)
        y = torch.tensor(y, dtype=torch.long)
        train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
    else:
        root = Path(folder)
        train_x = _idx(root / "train-images-idx3-ubyte.gz")[:, None]
        train_y = _idx(root / "train-labels-idx1-ubyte.gz").long()
        test_x = _idx(root / "t10k-images-idx3-ubyte.gz")[:, None]
        test_y = _idx(root / "t10k-labels-idx1-ubyte.gz").long()
    if images + validation > len(train_x):
        # else the same image would train and judge
        raise ValueError(
            f"images={images} and half as many for validation are more than the {len(train_x)} there are; "
            f"use at most {len(train_x) * 2 // 3}."
        )
    splits = {
        "train": (train_x[:images], train_y[:images]),
        "val": (train_x[-validation:], train_y[-validation:]),
        "test": (test_x, test_y),
    }
    # only what is used becomes floating point
    return {
        name: (x / (255.0 if x.dtype == torch.uint8 else 1.0), y) for name, (x, y) in splits.items()
    }
