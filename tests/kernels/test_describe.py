"""The plan's words against what is really launched, counted on tensors without data."""

import pytest
import torch

from darts_core.spaces import get_space
from darts_core.supernet.describe import describe_plan, describe_stem
from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_core.supernet.search_skeleton import _ImagenetStem
from darts_core.supernet.skeleton import cifar_stem
from darts_core.supernet.stem import fuse_stems

from .cells import make_cell

OPS = get_space("darts").ops
# what the plan calls a Triton kernel
KERNEL_NAMES = {
    "_depthwise_kernel": "depthwise",
    "_pointwise_kernel": "pointwise",
    "_pool_kernel": "pools",
    "_point_kernel": "reduction",
    "_finalize_kernel": "moments",
    "_inner_kernel": "second depthwise",
    "_node_sum_kernel": "node sum",
    "_join_kernel": "join",
    "_reduce_kernel": "sums",
    "_pointwise_backward_kernel": "pointwise gradient",
    "_inner_backward_kernel": "second depthwise gradient",
    "_reduction_backward_kernel": "reduction gradient",
    "_point_backward_kernel": "reduction weights",
    "_pool_backward_kernel": "pool gradient",
    "_depthwise_backward_kernel": "state gradient",
    "_split_kernel": "split",
    "_moments_kernel": "partial moments",
    "_source_sum_kernel": "node sum",
    "_source_reduce_kernel": "sums",
    "_source_coefficient_kernel": "coefficients",
    "_source_gradient_kernel": "branch gradients",
    "_state_gradient_kernel": "state gradient",
    "_conv_kernel": "convolution and moments",
    "_conv_input_kernel": "input gradient",
    "_conv_weight_kernel": "weight gradient",
    "_conv_share_kernel": "weight sums",
    "_source_flag_kernel": "flags",
    "_source_pool_kernel": "drawn pool",
    "_normalize_kernel": "norm",
    "_normalize_reduce_kernel": "sums",
    "_normalize_coefficient_kernel": "coefficients",
}
# launches of torch's own libraries, in cells with dense convolutions
LIBRARY = ("relu", "convolution", "convolution gradient", "pool")
BESIDE = ("_normalize", "_flag", "_halve")
CASES = {
    "darts": {"ops": OPS, "inputs": 2, "nodes": 2},
    "reduces": {"ops": OPS, "inputs": 2, "nodes": 2, "reduces": True},
    "preprocessed": {"ops": OPS, "inputs": 2, "nodes": 2, "preprocess": True},
    "partial": {"ops": OPS, "inputs": 2, "nodes": 2, "reduces": True, "groups": 2},
    "one stage": {"ops": ["none", "dil_conv_3x3"], "nodes": 2},
    "nasbench201": {"ops": get_space("nasbench201").ops, "nodes": 3},
    "drawn nasbench201": {"ops": get_space("nasbench201").ops, "nodes": 3, "sparse": True},
    "drawn dense pools": {
        "ops": ["nor_conv_3x3", "max_pool_3x3", "avg_pool_3x3"],
        "nodes": 2,
        "sparse": True,
    },
    "dense pools": {"ops": ["nor_conv_3x3", "max_pool_3x3", "avg_pool_3x3"], "nodes": 2},
}


@pytest.fixture
def launched(monkeypatch):
    """The names of all kernels, which are not run."""
    from triton.runtime import interpreter, jit

    names = []

    def note(self, *_, **__):
        names.append(self.__name__)

    monkeypatch.setattr(jit.JITFunction, "run", note)
    monkeypatch.setattr(interpreter.InterpretedFunction, "run", note)
    return names


@pytest.mark.parametrize("make", [cifar_stem, _ImagenetStem])
def test_the_stem_is_what_is_launched(launched, make):
    stem = make(3, 8).to("meta")
    fuse_stems(stem, "tf32")
    outs = stem(torch.empty(2, 3, 16, 16, device="meta"))
    outs = outs if isinstance(outs, list) else [outs]
    forward, launched[:] = list(launched), []
    torch.autograd.backward(outs, [torch.empty_like(out) for out in outs])
    rows = describe_stem(stem, 2, 16, 16)
    assert [KERNEL_NAMES[name] for name in forward] == said(rows, "kernels_forward")
    assert [KERNEL_NAMES[name] for name in launched] == said(reversed(rows), "kernels_backward")
    assert describe_stem(torch.nn.Linear(2, 2), 2, 16, 16) is None


@pytest.mark.parametrize("case", CASES)
def test_kernels_are_those_that_are_launched(launched, case):
    options = dict(CASES[case])
    sparse = options.pop("sparse", False)
    cell = make_cell(options.pop("ops"), channels=4, **options)
    cell.sparse = sparse
    plan = plan_cell(cell, cell.channels)
    layout = plan.layout
    fused = fused_class(plan, on_gpu=True).adopt(cell, plan, "fp32").to("meta")
    widths = getattr(layout, "input_channels", ()) or (cell.channels,) * cell.inputs
    inputs = [torch.empty(2, w, 8, 8, device="meta", requires_grad=True) for w in widths]
    weights = torch.empty(len(plan.order), layout.operations, device="meta", requires_grad=True)
    out = fused(inputs, weights)
    forward, launched[:] = list(launched), []
    out.backward(torch.empty_like(out))
    rows = describe_plan(layout, 2, 8, 8, sparse=sparse)
    # a preprocessed input: pointwise; then its gradients
    before = len(getattr(layout, "input_channels", ()))
    found = [KERNEL_NAMES[n] for n in forward if not n.startswith(BESIDE)][before:]
    assert found == said(rows, "kernels_forward")
    backward = [KERNEL_NAMES[n] for n in launched if not n.startswith(BESIDE)]
    after = len(backward) - len(getattr(layout, "input_channels", ()))
    # the last wave comes first
    assert backward[:after] == said(reversed(rows), "kernels_backward")


def said(rows, key):
    """All kernels of our own, in the plan's order."""
    return [name for row in rows for name in row[key] if name not in LIBRARY]
