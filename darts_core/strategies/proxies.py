"""Zero-cost proxies: numbers from one batch and an untrained network that rank architectures.

Every proxy takes a network and a batch and returns a number, larger meaning better. The network's
parameters and running statistics are left as they were.

Shapes: images [B, C, H, W] or other inputs [B, ...], labels [B] or other targets [B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from darts_core.errors import ConfigError, unknown_name

__all__ = [
    "PROXIES",
    "WITH_TARGETS",
    "grad_norm",
    "grasp",
    "has_relu",
    "jacobian_covariance",
    "naswot",
    "score",
    "snip",
    "synflow",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Proxy = Callable[[nn.Module, Tensor, Tensor, Loss], float]


def score(
    name: str,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    loss: Loss = cross_entropy,
) -> float:
    """The proxy `name` of the network on the batch.

    Args:
        name: of `PROXIES`; those of `WITH_TARGETS` need targets and the loss, the others images alone.
        network: to be judged.
        images: inputs of a batch.
        labels: their targets.
        loss: (outputs, targets) -> scalar, the task's.

    Raises:
        ConfigError: there is no such proxy, or it does not work on token numbers.
    """
    if name not in PROXIES:
        raise ConfigError(unknown_name("zero-cost proxy", name, PROXIES))
    if name in _OF_VALUES and not images.is_floating_point():
        raise ConfigError(
            f"The proxy {name!r} differentiates for the inputs, and token numbers have no gradient; choose "
            f"{', '.join(WITH_TARGETS)}."
        )
    with _untouched(network):
        return PROXIES[name](network, images, labels, loss)


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """A context in which norms use batch statistics; mode and buffers are restored afterwards."""
    was_training = network.training
    saved = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    try:
        yield
    finally:
        network.train(was_training)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(saved[name])


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    out = network(images)
    logits: Tensor = out[0] if isinstance(out, tuple) else out
    return logits


def _loss(network: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    return loss(_logits(network, images), labels)


def _weights(network: nn.Module) -> list[Tensor]:
    """Weights of convolutions and linear layers: what pruning at initialisation looks at."""
    found: list[Tensor] = []
    for module in network.modules():
        if (
            isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))
            and module.weight.requires_grad
        ):
            found.append(module.weight)
    return found


def _sum_of(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([tensor.detach().sum() for tensor in tensors]).sum())


def _gradients(loss: Tensor, params: list[Tensor], *, graph: bool = False) -> list[Tensor]:
    found = torch.autograd.grad(loss, params, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


def grad_norm(
    network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> float:
    """The sum over layers of the norms of the weights' gradients.

    Source: Abdelfattah et al. (arXiv:2101.08134), section 3.1.
    """
    gradients = _gradients(_loss(network, images, labels, loss), _weights(network))
    return float(torch.stack([g.norm() for g in gradients]).sum())


def snip(network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy) -> float:
    """sum |dL/dw * w|: what the loss would change by, to first order, without each weight.

    Source: SNIP (arXiv:1810.02340), Eq. 6; as a proxy arXiv:2101.08134, Eq. 2.
    """
    weights = _weights(network)
    gradients = _gradients(_loss(network, images, labels, loss), weights)
    return _sum_of((g * w).abs() for g, w in zip(gradients, weights, strict=True))


def grasp(network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy) -> float:
    """sum -(H dL/dw) * w: how much the gradient's norm depends on each weight.

    Source: GraSP (arXiv:2002.07376), Eq. 8; as a proxy arXiv:2101.08134, Eq. 2.
    """
    weights = _weights(network)
    # the fast kernels of attention cannot be derived twice
    with sdpa_kernel(SDPBackend.MATH):
        gradients = _gradients(_loss(network, images, labels, loss), weights, graph=True)
        dot = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
        products = _gradients(dot, weights)
    return _sum_of(-h * w for h, w in zip(products, weights, strict=True))


def synflow(
    network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> float:
    """sum dR/dw * w with R the sum of the outputs for an image of ones and |w| for w.

    No data enters. Batch norms are bypassed, as they would hide the size of the path. Computed in
    double precision, since the product over layers overflows floats.

    Source: SynFlow (arXiv:2006.05467), Eq. 5; as a proxy arXiv:2101.08134, Eq. 3.
    """
    params = list(network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    saved = [p.detach().clone() for p in params]
    dtypes = {id(p): p.dtype for p in params}
    handles = [norm.register_forward_hook(lambda m, inputs, out: inputs[0]) for norm in norms]
    try:
        # bypassed norms still check their input; in evaluation mode one image passes
        network.double().eval()
        with torch.no_grad():
            for p in params:
                p.abs_()
        ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
        weights = _weights(network)
        gradients = _gradients(_logits(network, ones).sum(), weights)
        return _sum_of(g * w for g, w in zip(gradients, weights, strict=True))
    finally:
        for handle in handles:
            handle.remove()
        network.to(next(iter(dtypes.values()), torch.float32))
        with torch.no_grad():
            for p, value in zip(params, saved, strict=True):
                p.copy_(value)


def jacobian_covariance(
    network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy
) -> float:
    """How different the network's local linear maps are for the images of the batch.

    With the eigenvalues v_i of the correlation of the rows of J = d sum(logits) / d images:
    -sum_i (log(v_i + k) + 1 / (v_i + k)), k = 1e-5.

    Source: Mellor et al., first version (arXiv:2006.04647v1), Eq. 3; as a proxy arXiv:2101.08134,
    section 3.1.
    """
    x = images.detach().clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(_logits(network, x).sum(), x)
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    values = torch.linalg.eigvalsh(rows @ rows.T)
    shifted = values.clamp_min(0) + 1e-5
    return float(-(shifted.log() + 1 / shifted).sum())


_RELUS = (nn.ReLU, nn.ReLU6)


def has_relu(network: nn.Module) -> bool:
    """Whether `naswot` has anything to look at."""
    return any(isinstance(module, _RELUS) for module in network.modules())


def naswot(network: nn.Module, images: Tensor, labels: Tensor, loss: Loss = cross_entropy) -> float:
    """log |det K_H|, K_H counting for each pair of images the ReLUs that are in the same state.

    Source: Mellor et al. (arXiv:2006.04647), Eq. 2 and 3.
    """
    size = len(images)
    kernel = torch.zeros(size, size, dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal kernel
        code = (output.detach().reshape(size, -1) > 0).double()
        kernel = kernel + code @ code.T + (1 - code) @ (1 - code).T

    handles = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, _RELUS)]
    if not handles:
        raise ConfigError("NASWOT needs ReLU modules; the network has none.")
    try:
        with torch.no_grad():
            _logits(network, images)
    finally:
        for handle in handles:
            handle.remove()
    return float(torch.linalg.slogdet(kernel).logabsdet)


PROXIES: dict[str, Proxy] = {
    "synflow": synflow,
    "snip": snip,
    "grasp": grasp,
    "grad_norm": grad_norm,
    "jacobian_covariance": jacobian_covariance,
    "naswot": naswot,
}
"""Every proxy by name."""
WITH_TARGETS = ("snip", "grasp", "grad_norm")
"""Those that look at the loss, and so need targets."""
_OF_VALUES = ("synflow", "jacobian_covariance")
