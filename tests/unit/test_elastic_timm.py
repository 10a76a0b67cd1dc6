"""Networks of another library, as they are: made elastic, one step, and sub-networks cut out."""

import numpy as np
import pytest
import torch

from benchmarks.timm_modules import import_timm
from darts_core.elastic import Sandwich, elastic

try:
    timm = import_timm()
except ImportError as missing:
    pytest.skip(f"needs timm: {missing}", allow_module_level=True)

SMALL = {"img_size": 64}
NETWORKS = {
    "resnet10t": {}, "resnet14t": {}, "resnet18": {}, "resnet26": {}, "legacy_seresnet18": {},
    "convnext_atto": {}, "convnext_femto": {}, "convnext_pico": {}, "convnext_atto_ols": {},
    "convnextv2_atto": {},
    "vit_tiny_patch16_224": SMALL, "deit_tiny_patch16_224": SMALL, "vit_small_patch32_224": SMALL,
    "vit_xsmall_patch16_clip_224": SMALL, "vit_wee_patch16_reg1_gap_256": SMALL,
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_a_foreign_network_is_made_elastic_trained_a_step_and_cut(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **NETWORKS[name]).double().eval()
    x, y = torch.randn(2, 3, 64, 64).double(), torch.tensor([0, 1])
    wanted = model(x)
    net = elastic(model, x)
    assert torch.allclose(net.model(x), wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))
    assert len(net.variables) > 1
    net.model.train()
    loss = Sandwich(net, drawn=1).backward(
        x, lambda output: torch.nn.functional.cross_entropy(output, y)
    )
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.model.parameters())
    net.model.eval()
    generator = np.random.default_rng(0)
    sizes = []
    for _ in range(5):
        choices = net.draw(generator)
        with torch.no_grad():
            with net.running(choices) as network:
                sliced = network(x)
            plain = net.cut(choices)
            assert torch.allclose(plain(x), sliced, rtol=0, atol=1e-10)
        sizes.append(sum(p.numel() for p in plain.parameters()))
    assert max(sizes) < sum(p.numel() for p in net.model.parameters())
