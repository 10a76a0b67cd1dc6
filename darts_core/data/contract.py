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
        """Inputs have one shape and a dtype of their kind; targets are what the task takes."""
        for name in SPLITS:
            split = bundle.split(name)
            assert split.inputs.shape == (len(split), *bundle.input_shape)
            assert len(split.targets) == len(split)
            if bundle.task.takes[0] == "class":
                assert split.targets.dtype == torch.int64
                assert (
                    0 <= int(split.targets.min()) <= int(split.targets.max()) < bundle.num_classes
                )
        assert bundle.num_outputs == bundle.num_classes or bundle.task.takes[0] != "class"
        if bundle.kind == "tokens":
            tokens = bundle.pool.inputs_N
            assert isinstance(tokens, torch.Tensor)
            assert int(tokens.min()) >= 0
            assert int(tokens.max()) < bundle.in_channels == len(bundle.vocabulary)
        else:
            assert (
                len(bundle.mean) == len(bundle.std) == bundle.in_channels == bundle.input_shape[0]
            )

    def test_splits_are_disjoint_and_filled(self, bundle: DataBundle) -> None:
        """No image is in two splits, none is empty, and params and alpha know every class."""
        index = np.concatenate([bundle.parts[name].cpu().numpy() for name in SPLITS])
        assert len(np.unique(index)) == len(index)
        assert all(size > 0 for size in bundle.sizes.values())
        for name in ("params", "alpha") if bundle.task.takes[0] == "class" else ():
            classes = bundle.split(name).targets.unique()
            assert len(classes) == bundle.num_classes

    def test_same_call_same_data(self, bundle: DataBundle, same_bundle: DataBundle) -> None:
        """Two bundles of one call are equal, image by image."""
        for name in SPLITS:
            assert torch.equal(bundle.split(name).inputs, same_bundle.split(name).inputs)
            assert torch.equal(bundle.split(name).targets, same_bundle.split(name).targets)

    def test_normalised_by_params(self, bundle: DataBundle) -> None:
        """The params split has mean 0 and variance 1 a channel after normalising."""
        if bundle.kind == "tokens":
            return
        inputs = bundle.normalize(bundle.split("params").inputs).double()
        axes = [0, *range(2, inputs.dim())]
        mean, std = inputs.mean(axes), inputs.std(axes)
        assert float(mean.abs().max()) < 0.02
        assert float((std - 1).abs().max()) < 0.02

    def test_epoch_holds_each_image_once(self, bundle: DataBundle) -> None:
        """An epoch without drop_last is a permutation of the split."""
        batches = list(bundle.batches("params", self.batch_size, seed=3, epoch=1, drop_last=False))
        seen = torch.cat([targets for _, targets in batches]).flatten()
        assert torch.equal(seen.sort()[0], bundle.split("params").targets.flatten().sort()[0])
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
