"""Exact parameter and multiply-accumulate counts of the published networks and supernets."""

import numpy as np
import pytest
import torch

from darts_core import Architecture, Supernet, build, count, get_space


def params(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_darts_supernet_has_the_published_size() -> None:
    net = Supernet(get_space("darts"), channels=16, layers=8, num_classes=10)
    assert params(net) == 1_930_618
    assert sum(a.numel() for a in net.alphas()) == 224
    assert [params(cell) for cell in net.cells] == [
        45888, 46144, 144000, 137856, 139904, 484608, 460032, 468224,
    ]  # fmt: skip
    assert (params(net.stem), params(net.head)) == (1392, 2570)


def test_nasbench201_supernet_has_the_published_size() -> None:
    net = Supernet(get_space("nasbench201"), channels=16, layers=5, num_classes=10)
    assert params(net) == 1_686_106


@pytest.mark.parametrize(
    ("name", "plain", "with_auxiliary"),
    [("DARTS_V1", 3_169_414, 3_645_840), ("DARTS_V2", 3_349_342, 3_825_768)],
)
def test_darts_networks_have_the_published_sizes(
    name: str, plain: int, with_auxiliary: int
) -> None:
    architecture = Architecture.named(name)
    assert params(build(architecture)) == plain
    assert params(build(architecture, auxiliary=True)) == with_auxiliary


def test_darts_v2_macs() -> None:
    assert count(build(Architecture.named("DARTS_V2"))).macs == 528_359_040


def test_darts_v2_imagenet() -> None:
    architecture = Architecture.named("DARTS_V2")
    net = build(architecture, channels=48, layers=14, num_classes=1000, stem="imagenet")
    size = count(net, (3, 224, 224))
    assert (size.params, size.macs) == (4_718_752, 529_911_552)
    auxiliary = build(
        architecture, channels=48, layers=14, num_classes=1000, stem="imagenet", auxiliary=True
    )
    assert params(auxiliary) == 5_979_528


def test_nasbench201_networks_follow_the_formula() -> None:
    rng = np.random.default_rng(7)
    space = get_space("nasbench201")
    for _ in range(6):
        architecture = space.random(rng)
        ops = [op for _, _, op in architecture.cell("cell").edges]
        kernels = 9 * ops.count("nor_conv_3x3") + ops.count("nor_conv_1x1")
        convs = ops.count("nor_conv_3x3") + ops.count("nor_conv_1x1")
        size = count(build(architecture, channels=16, layers=5))
        assert size.params == 73_306 + 26_880 * kernels + 1_120 * convs
        assert size.macs == 7_783_040 + 3_932_160 * kernels
