"""Fresh seeds that are printed when a test fails, and poisoned empty buffers."""

import os
import random
from collections.abc import Iterator

import pytest
import torch
import triton
from triton.runtime import interpreter

if triton.__version__.startswith("3.6."):
    # its interpreter hands loops their bounds as arrays of one element, which NumPy 2.4 no longer converts
    _real_patch = interpreter._patch_lang_tensor

    def _patch_lang_tensor(tensor: type, scope: interpreter._LangPatchScope) -> None:
        _real_patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _patch_lang_tensor


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    """A generator with a new seed each run; DARTS_TEST_SEED pins it."""
    seed = int(os.environ.get("DARTS_TEST_SEED", random.randrange(2**31)))
    print(f"DARTS_TEST_SEED={seed}")
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.interpret),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where kernel bodies run: in the interpreter, and, at the same small odd shapes, on a GPU."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield request.param
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill every empty buffer with NaN (-1 for integers), so that an unwritten element shows."""
    real, real_like = torch.empty, torch.empty_like

    def filled(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -1)

    monkeypatch.setattr(torch, "empty", lambda *a, **k: filled(real(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: filled(real_like(*a, **k)))
