"""Sparse weights: flags, and bodies that neither write nor read what was not drawn."""

import pytest
import torch

from darts_core.supernet.plan import plan_cell
from darts_kernels.drawn import drawn_flags, drawn_reference
from darts_kernels.layout import cell_tables

from .cells import check_cell, make_cell

OPS = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]


def two_nodes(**options):
    cell = make_cell(OPS, nodes=2, **options)
    layout = plan_cell(cell, cell.channels).layout
    return cell, layout


def test_reference_names_branches_and_shared_pools():
    _, layout = two_nodes(reduces=True)
    mix = torch.zeros(3, 6)
    mix[0, 4], mix[1, 2], mix[2, 5] = 0.5, 2.0, -1.0
    drawn, live = drawn_reference(layout, mix)
    # slots: sep_conv, dil_conv, max pool, average pool, skip
    assert drawn.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    first, second, pools, reductions = live.split([6, 3, 4, 2])
    assert first.tolist() == [1, 0, 0, 0, 0, 1]
    assert second.tolist() == [1, 0, 0]
    assert pools.tolist() == [0, 1, 0, 0]
    assert reductions.tolist() == [0, 0]


@pytest.mark.interpret
@pytest.mark.parametrize("reduces", [False, True])
def test_flags_are_the_references(rng, poison, reduces):
    _, layout = two_nodes(inputs=2, reduces=reduces)
    tables = cell_tables(layout, 2, 4, 4, torch.device("cpu"))
    for _ in range(3):
        mix = torch.rand(5, 6, generator=rng) * (torch.rand(5, 6, generator=rng) < 0.3)
        for found, right in zip(
            drawn_flags(layout, tables, mix), drawn_reference(layout, mix), strict=True
        ):
            assert torch.equal(found, right)


@pytest.mark.parametrize("drawn", [(4, 2, 5), (5, 4, 1), (3, 0, 4), (1, -1, 3)])
def test_bodies(device, rng, poison, monkeypatch, drawn):
    cell, _ = two_nodes()
    check_cell(cell, rng, device=device, height=4, width=5, drawn=drawn, monkeypatch=monkeypatch)


@pytest.mark.parametrize("drawn", [(4, 3, 5), (2, 5, 3)])
def test_bodies_of_a_reduction_cell(device, rng, poison, monkeypatch, drawn):
    cell, _ = two_nodes(reduces=True)
    check_cell(cell, rng, device=device, height=8, width=7, drawn=drawn, monkeypatch=monkeypatch)


def test_sparse_and_partial_behind_preprocessing(device, rng, poison, monkeypatch):
    cell = make_cell(OPS, channels=4, nodes=2, inputs=2, groups=2, preprocess=True)
    check_cell(
        cell, rng, device=device, height=4, width=4, drawn=(4, 2, 3, 0, 5), monkeypatch=monkeypatch
    )


def test_pools_without_norm(device, rng, poison, monkeypatch):
    cell = make_cell(OPS, nodes=2, norm_after_pool=False)
    check_cell(
        cell, rng, device=device, height=4, width=4, drawn=(2, 1, 4), monkeypatch=monkeypatch
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("reduces", [False, True])
def test_the_darts_cell_on_the_gpu(rng, poison, precision, reduces):
    from darts_core.spaces import get_space

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    ops = get_space("darts").ops
    cell = make_cell(ops, channels=16, inputs=2, nodes=4, reduces=reduces, preprocess=True)
    # both inputs stay connected
    drawn = [4, 5, *torch.randint(len(ops), (12,), generator=rng).tolist()]
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    check_cell(cell, rng, batch=16, height=32, width=32, device="cuda", precision=precision,
               drawn=drawn, floor=floor)  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["plain", "fused"])
def test_drawing_makes_no_host_wait(path):
    from darts_core.relax import GumbelStraightThrough
    from darts_core.spaces import get_space
    from darts_core.supernet import Supernet

    net = Supernet(get_space("darts"), channels=8, layers=3, relaxation=GumbelStraightThrough())
    net.cuda().use_path(path)
    x = torch.randn(4, 3, 16, 16, device="cuda")
    net(x).square().sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        net(x).square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
