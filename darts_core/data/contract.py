"""The contract test class for data sets: subclass it, supply one fixture, get the tests."""

from __future__ import annotations

import numpy as np
import torch

from darts_core.data.bundle import DataBundle
from darts_core.data.splits import SPLITS

__all__ = ["DatasetContract"]


class DatasetContract:
    """What every data set must fulfil.

    A subclass in a test file defines a pytest fixture `bundle` that returns a fresh `DataBundle`
    (for instance from `load_data`), and `same_bundle`, a second one made by the same call.
    """

    batch_size = 4

    def test_shapes_and_types(self, bundle: DataBundle) -> None:
        """Images are square uint8 with 1 or 3 channels; labels are int64 below num_classes."""
        channels, height, width = bundle.image_shape
        assert channels in (1, 3)
        assert height == width
        for name in SPLITS:
            split = bundle.split(name)
            assert split.images.dtype == torch.uint8
            assert split.images.shape == (len(split), channels, height, width)
            assert split.labels.dtype == torch.int64
            assert 0 <= int(split.labels.min()) <= int(split.labels.max()) < bundle.num_classes

    def test_splits_are_disjoint_and_filled(self, bundle: DataBundle) -> None:
        """No image is in two splits, none is empty, and params and alpha know every class."""
        index = np.concatenate([bundle.parts[name].cpu().numpy() for name in SPLITS])
        assert len(np.unique(index)) == len(index)
        assert all(size > 0 for size in bundle.sizes.values())
        for name in ("params", "alpha"):
            classes = bundle.split(name).labels.unique()
            assert len(classes) == bundle.num_classes

    def test_same_call_same_data(self, bundle: DataBundle, same_bundle: DataBundle) -> None:
        """Two bundles of one call are equal, image by image."""
        for name in SPLITS:
            assert torch.equal(bundle.split(name).images, same_bundle.split(name).images)
            assert torch.equal(bundle.split(name).labels, same_bundle.split(name).labels)

    def test_normalised_by_params(self, bundle: DataBundle) -> None:
        """The params split has mean 0 and variance 1 a channel after normalising."""
        images = bundle.normalize(bundle.split("params").images).double()
        mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
        assert float(mean.abs().max()) < 0.02
        assert float((std - 1).abs().max()) < 0.02

    def test_epoch_holds_each_image_once(self, bundle: DataBundle) -> None:
        """An epoch without drop_last is a permutation of the split."""
        batches = list(bundle.batches("params", self.batch_size, seed=3, epoch=1, drop_last=False))
        seen = torch.cat([labels for _, labels in batches]).bincount()
        assert torch.equal(seen, bundle.split("params").labels.bincount())
        assert len(batches) == bundle.steps("params", self.batch_size, drop_last=False)

    def test_batches_start_anywhere(self, bundle: DataBundle) -> None:
        """Batches from step k on equal those of a whole epoch, bit for bit."""
        whole = list(bundle.batches(("params", "alpha"), self.batch_size, seed=3, epoch=1))
        start = len(whole) // 2
        part = list(
            bundle.batches(("params", "alpha"), self.batch_size, seed=3, epoch=1, start=start)
        )
        assert len(part) == len(whole) - start
        for (x, y), (u, v) in zip(part, whole[start:], strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)

    def test_test_split_is_guarded(self, bundle: DataBundle) -> None:
        """Reading the test split is counted; sizes, names and other splits are not reads of it."""
        before = bundle.test_reads
        _ = bundle.sizes, bundle.size("test"), bundle.split(("params", "val"))
        assert bundle.test_reads == before
        _ = bundle.test
        assert bundle.test_reads == before + 1
