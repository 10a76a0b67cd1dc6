"""Batches and policies on a CUDA device: the same data as on the host, no waiting, little time."""

import statistics
import time

import numpy as np
import pytest
import torch

from darts_core.augment import Augment, PolicyTransform, policy_from_yaml
from darts_core.data import RawData, make_bundle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def bundle(device, **options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 3, 32, 32)).astype(np.uint8)
    raw = RawData(images, np.arange(4000) % 10, tuple("0123456789"), "made")
    return make_bundle("made", raw, device=device, **options)


def test_resident_and_streamed_batches_equal_those_of_the_host():
    host = bundle("cpu").batches("params", 64, seed=1, epoch=2)
    resident = bundle("cuda").batches("params", 64, seed=1, epoch=2)
    streamed = bundle("cuda", resident=False).batches("params", 64, seed=1, epoch=2)
    for (x, y), (u, v), (s, t) in zip(host, resident, streamed, strict=True):
        assert u.is_cuda
        assert s.is_cuda
        assert torch.equal(u, s)
        assert torch.equal(v, t)
        assert torch.allclose(x, u.cpu(), atol=1e-6)
        assert torch.equal(y, v.cpu())


def test_augmented_streams_are_equal_and_can_start_anywhere():
    augment = Augment(4, True, 8, "trivialaugment")
    whole = list(bundle("cuda").batches("params", 64, seed=1, augment=augment))
    part = bundle("cuda", resident=False).batches("params", 64, seed=1, augment=augment, start=9)
    for (x, _), (u, _) in zip(whole[9:], part, strict=True):
        # scatters of histogram counts and warps are exact or repeatable to float rounding
        assert torch.allclose(x, u, atol=1e-5)


@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_waits_for_nothing(resident):
    reader = bundle("cuda", resident=resident).batches("params", 64, augment=Augment(4, True, 8))
    next(reader)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            next(reader)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_policies_run_on_the_device():
    x = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, device="cuda")
    generator = torch.Generator("cuda").manual_seed(1)
    for name in ("autoaugment_cifar10", "autoaugment_svhn", "randaugment", "trivialaugment"):
        transform = PolicyTransform(policy_from_yaml(name))
        first, second = transform(x, generator), transform(x, generator)
        assert first.is_cuda
        assert not torch.equal(first, second)
        again = transform(x, torch.Generator("cuda").manual_seed(5))
        assert torch.equal(again, transform(x, torch.Generator("cuda").manual_seed(5)))


def test_a_batch_of_64_takes_at_most_a_millisecond():
    data = bundle("cuda")
    times = []
    for epoch in range(8):
        reader = data.batches(("params", "alpha"), 64, epoch=epoch, augment=Augment(4, True, 16))
        for _ in range(5):
            next(reader)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(30):
            next(reader)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / 30 * 1e3)
    # the first epoch is the warm-up
    assert statistics.median(times[1:]) <= 1.0, f"{times} ms"
