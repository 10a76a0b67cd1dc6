"""Attention within windows is written as ONNX, whose exporter takes that of four dimensions alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from darts_core.errors import ExportError
from darts_core.export import export_model, load
from darts_core.export.attention import _plain

META = {"class_names": ("a", "b"), "image_shape": (4, 8, 8), "mean": (0.5,) * 4, "std": (0.5,) * 4,
        "name": "windows"}  # fmt: skip


class Windows(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.qkv, self.head, self.how = nn.Linear(4, 12), nn.Linear(4, 2), how

    def forward(self, x_BCHW):
        tokens = x_BCHW.flatten(2).transpose(1, 2).unflatten(1, (4, 16))  # [B, windows, T, C]
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 2)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, **self.how)
        return self.head(mixed.transpose(2, 3).flatten(3).mean((1, 2)))


MASK = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "how",
    [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": MASK}, {"attn_mask": MASK > 0.3}],
    ids=["plain", "causal", "scaled", "added", "masked"],
)
def test_attention_within_windows_is_products_and_a_softmax(how):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 2, 16, 5, dtype=torch.float64).unbind(0)
    if how.get("attn_mask") is MASK:
        how = {"attn_mask": MASK.double()}
    expected = functional.scaled_dot_product_attention(q, k, v, **how)
    torch.testing.assert_close(_plain(q, k, v, **how), expected, rtol=1e-12, atol=1e-12)


def test_a_network_of_windows_is_written_and_agrees(tmp_path):
    torch.manual_seed(0)
    model = Windows(is_causal=True).eval()
    manifest = export_model(model, tmp_path, META, formats=("onnx",), time_artifacts=False)
    assert manifest["artifacts"]["onnx"]["relative_error"] < 1e-5
    x = torch.rand(3, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            load(tmp_path, runtime="onnx")(x), model(x), rtol=1e-4, atol=1e-5
        )


def test_what_onnx_has_not_is_named_by_its_first_cause(tmp_path):
    class Unknown(nn.Module):
        def forward(self, x_BCHW):
            return torch.special.i1e(x_BCHW.flatten(1))[:, :2]

    with pytest.raises(ExportError, match=r"No ONNX function found for .*bessel_i1e") as caught:
        export_model(Unknown(), tmp_path, META, formats=("onnx",), time_artifacts=False)
    assert "full stack trace" not in str(caught.value)
