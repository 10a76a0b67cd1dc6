"""What the tests of the module path and the batched path share: images, batches, equal states."""

import torch


def assert_same_state(one, two):
    left, right = one.state_dict(), two.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.allclose(right[name], value, atol=1e-10), name


def images(count=4, side=8):
    return torch.randn(count, 1, side, side, dtype=torch.float64)


def batches(step):
    generator = torch.Generator().manual_seed(step)
    return tuple(
        (
            torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=generator),
            torch.randint(10, (6,), generator=generator),
        )
        for _ in range(2)
    )
