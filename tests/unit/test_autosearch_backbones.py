import random

import pytest
import torch

from darts_core.autosearch.backbones import (
    PUBLISHED_RESNET50,
    DenseConv,
    DenseFC,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    grammar,
)
from darts_core.autosearch.backbones.dense_grammar import (
    check_dense_code,
)
from darts_core.errors import ArchitectureError, ConfigError

PARAMS = (
    36_547_136, 35_012_928, 24_889_408, 24_889_408, 10_722_112, 11_083_328,
    42_035_008, 38_371_904, 35_923_264, 22_523_200, 23_508_032,
)  # fmt: skip


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("index", range(11))
def test_published_codes_have_the_exact_number_of_params(index):
    with torch.device("meta"):
        assert count(ResNet50(f"resnet50/{index}")) == PARAMS[index]


def test_standard_networks_have_the_known_number_of_params():
    # torchvision's totals less its 1000-class classifier
    with torch.device("meta"):
        assert count(ResNet18()) == 11_689_512 - 512 * 1000 - 1000
        assert count(ResNet34()) == 21_797_672 - 512 * 1000 - 1000
        assert count(ResNet101()) == 44_549_160 - 2048 * 1000 - 1000


def test_stride_stands_in_the_3x3_and_projection_where_the_shape_changes():
    net = ResNet50(width=8)
    first = net.stages[1][0]
    strides = [m.stride[0] for m in first.body if isinstance(m, torch.nn.Conv2d)]
    assert strides == [1, 2, 1]
    assert not isinstance(first.shortcut, torch.nn.Identity)
    assert isinstance(net.stages[1][1].shortcut, torch.nn.Identity)
    # no stride and no doubling, but four times the channels: still projected
    assert not isinstance(net.stages[0][0].shortcut, torch.nn.Identity)


def test_outputs_last_and_stages_agree():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 32, 32)
    net = ResNet50("1-2-12", in_channels=1, width=4, outputs="stages").eval()
    every = net(x)
    assert [tuple(y.shape) for y in every] == [(2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]
    assert net.stage_channels == [16, 32, 64]
    net.outputs = "last"
    torch.testing.assert_close(net(x), every[-1])


def test_pretrained_params_are_loaded_and_foreign_ones_refused(tmp_path):
    net = ResNet18("1-2", width=4)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    again = ResNet18("1-2", width=4, pretrained=tmp_path / "a.pt")
    torch.testing.assert_close(again.state_dict(), net.state_dict())
    with pytest.raises(ArchitectureError, match="1-22"):
        ResNet18("1-22", width=4, pretrained=tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="no file"):
        ResNet18("1-2", width=4, pretrained=tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("code", "position"),
    [("11-2x1", 5), ("-11", 1), ("1--1", 3), ("11-", 3), ("", 1), ("1" * 201, 201), ("2222222", 7)],
)
def test_bad_codes_are_rejected_with_the_position(code, position):
    with pytest.raises(ArchitectureError, match=f"position {position}:"):
        grammar.check_code(code)


def test_blocks_follow_the_grammar():
    items = grammar.blocks("12-1-21", 10)
    assert [(b.stage, b.stride, b.width) for b in items] == [
        (0, 1, 10), (0, 1, 20), (1, 2, 20), (2, 2, 40), (2, 1, 40),
    ]  # fmt: skip


def test_samples_and_mutations_are_well_formed_and_one_edit_away():
    rng = random.Random(3)
    for _ in range(50):
        code = grammar.sample(rng)
        grammar.check_code(code)
        assert code.count("2") == 3
        assert code.count("-") == 3
        assert 5 <= len(code.replace("-", "")) <= 35
        child = grammar.mutate(code, rng)
        grammar.check_code(child)
        assert child != code
        assert abs(len(child) - len(code)) <= 1
        assert child.count("2") == 3
        assert child.count("-") == 3
    assert len({grammar.sample(rng) for _ in range(20)}) > 15


def test_named_codes():
    assert grammar.named_code("resnet50") == PUBLISHED_RESNET50[10]
    with pytest.raises(ArchitectureError):
        grammar.named_code("resnet50/11")


def test_dense_backbones():
    torch.manual_seed(0)
    net = DenseConv("12-1", in_channels=1, start_channel=4)
    # 4 + 4 + 8 = 16, halved to 8, + 4
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 12, 4, 4)
    assert net.out_channels == 12
    flat = DenseFC("2-11", in_features=64, start_channel=8)
    assert flat(torch.randn(3, 1, 8, 8)).shape == (3, flat.out_channels)
    with pytest.raises(ArchitectureError, match="position 3"):
        check_dense_code("1-5")
    for bad, position in (("", 1), ("-1", 1), ("1--2", 3), ("12-", 4), ("1x", 2)):
        with pytest.raises(ArchitectureError, match=f"position {position}"):
            check_dense_code(bad)
    with pytest.raises(ArchitectureError, match="more than 64 layers"):
        check_dense_code("1" * 65)
