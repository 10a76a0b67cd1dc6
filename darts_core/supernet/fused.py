"""The fused path: searched cells on batched Triton kernels, their parameters packed into one tensor.

`fuse(supernet)` turns every searched cell that the plan can express into a `FusedSearchCell`. It keeps
its name, its place and its state dict: parameters are packed into one tensor a cell, which an optimizer
updates in one launch, and state dicts are translated both ways, so that a checkpoint of the module path
loads here and the other way round. Only elementwise optimizers (SGD, Adam ...) see no difference.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from darts_core.errors import ConfigError
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.plan import CellPlan, plan_cell
from darts_core.supernet.stem import fuse_stems, unfuse_stems

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = [
    "FUSED_PRECISIONS",
    "PATHS",
    "FusedSearchCell",
    "choose_path",
    "fuse",
    "fused_class",
    "unfuse",
]

log = logging.getLogger("darts_core")

FUSED_PRECISIONS = ("fp32", "tf32", "bf16")
PATHS = ("auto", "plain", "fused", "batched")


def choose_path(path: str, device: torch.device) -> str:
    """The path that `path` means on `device`.

    Raises:
        ConfigError: it is unknown, or does not exist on the device.
    """
    if path not in PATHS:
        raise ConfigError(f"Unknown path {path!r}; choose {', '.join(PATHS)}.")
    fast = "fused" if device.type == "cuda" else "batched"
    if path == "auto":
        return fast
    if path != "plain" and path != fast:
        raise ConfigError(f"path={path} does not exist on {device}; choose auto, plain or {fast}.")
    return path


class _CellFunction(torch.autograd.Function):
    """The cell as one node of autograd; its backward is made of raw kernels and cannot be derived again."""

    @staticmethod
    def forward(
        ctx: Any, run: Any, order: Any, weights_EK: Tensor, packed: Tensor, *inputs: Tensor
    ) -> Tensor:
        from darts_kernels.cell import cell_forward

        mix_EK = weights_EK.float().index_select(0, order[0])
        nodes, saved = cell_forward(run, list(inputs), mix_EK, packed)
        ctx.run, ctx.order, ctx.count = run, order, len(inputs)
        ctx.weights_dtype = weights_EK.dtype
        ctx.save_for_backward(mix_EK, packed, *inputs, *saved.tensors())
        return nodes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nodes: Tensor) -> tuple[Any, ...]:
        from darts_kernels.cell import Saved
        from darts_kernels.cell_backward import cell_backward

        mix_EK, packed, *rest = ctx.saved_tensors
        inputs, saved = rest[: ctx.count], Saved(*rest[ctx.count :])
        grads, grad_mix, grad_packed = cell_backward(
            ctx.run,
            inputs,
            mix_EK,
            packed,
            saved,
            grad_nodes,
            input_grads=list(ctx.needs_input_grad[4:]),
            params_grad=ctx.needs_input_grad[3],
        )
        grad_weights = grad_mix.index_select(0, ctx.order[1]).to(ctx.weights_dtype)
        return None, None, grad_weights, grad_packed, *grads


class FusedSearchCell(SearchCell):
    """A searched cell whose branches run as batched kernels; made by `fuse` from a `SearchCell`."""

    packed: nn.Parameter
    plan: CellPlan
    precision: str
    cast_output: bool
    _shapes: dict[str, torch.Size]
    _names: list[str]
    _hooks: list[Any]
    _mean: Tensor
    _var: Tensor
    _batches: Tensor
    _order: tuple[Tensor, Tensor]
    _probe: Any

    @classmethod
    def adopt(cls, cell: SearchCell, plan: CellPlan, precision: str) -> FusedSearchCell:
        """Turn `cell` into a fused cell in place: its parameters move into `packed`."""
        fused: FusedSearchCell = cell  # type: ignore[assignment]
        fused.__class__ = cls
        fused.plan, fused.precision, fused.cast_output = plan, precision, False
        layout = plan.layout
        assert layout is not None
        like = next(cell.parameters())
        flat = torch.zeros(layout.params, device=like.device, dtype=like.dtype)
        modules = dict(cell.named_modules())
        fused._names = [name for name, _ in cell.named_parameters()]
        shapes = {}
        with torch.no_grad():
            for binding in plan.params:
                module = modules[binding.module]
                weight = module._parameters.pop(binding.name)
                assert weight is not None
                flat[binding.start : binding.start + binding.count] = weight.reshape(-1)
                shapes[f"{binding.module}.{binding.name}"] = weight.shape
        fused._shapes = shapes
        fused.packed = nn.Parameter(flat)
        fused._hooks = [
            fused._register_state_dict_hook(_export_params),
            fused.register_load_state_dict_pre_hook(_import_params),
        ]
        fused._link()
        return fused

    def restore(self) -> SearchCell:
        """Become an ordinary `SearchCell` again, with the present values."""
        modules = dict(self.named_modules())
        flat = self.packed.detach()
        for binding in self.plan.params:
            shape = self._shapes[f"{binding.module}.{binding.name}"]
            value = flat[binding.start : binding.start + binding.count].view(shape).clone()
            setattr(modules[binding.module], binding.name, nn.Parameter(value))
        for binding in self.plan.norms:
            norm = modules[binding.module]
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                norm._buffers[name] = norm._buffers[name].clone()  # type: ignore[union-attr]
        for hook in self._hooks:
            hook.remove()
        for name in ("_hooks", "_names", "_shapes", "plan", "precision", "cast_output"):
            delattr(self, name)
        for name in ("_mean", "_var", "_batches", "_order", "_probe"):
            self.__dict__.pop(name, None)
        del self.packed
        self.__class__ = SearchCell  # type: ignore[assignment]
        return self

    def _link(self) -> None:
        """Make every norm's running statistics a view of the packed ones, as the kernels update them."""
        layout = self.plan.layout
        assert layout is not None
        device = self.packed.device
        modules = dict(self.named_modules())
        dtype = self.packed.dtype
        mean = torch.zeros(layout.rows["end"], device=device, dtype=dtype)
        var = torch.ones(layout.rows["end"], device=device, dtype=dtype)
        batches = torch.zeros(1, dtype=torch.int64, device=device)
        for binding in self.plan.norms:
            norm = modules[binding.module]
            span = slice(binding.start, binding.start + binding.count)
            mean[span] = norm.running_mean.to(mean.dtype)  # type: ignore[operator,union-attr]
            var[span] = norm.running_var.to(var.dtype)  # type: ignore[operator,union-attr]
            batches[0] = norm.num_batches_tracked  # type: ignore[assignment]
            norm._buffers["running_mean"] = mean[span]
            norm._buffers["running_var"] = var[span]
            norm._buffers["num_batches_tracked"] = batches[0]
        order = torch.tensor(self.plan.order, device=device)
        self.__dict__["_mean"], self.__dict__["_var"] = mean, var
        self.__dict__["_batches"] = batches
        self.__dict__["_order"] = (order, torch.argsort(order))
        self.__dict__["_probe"] = modules[self.plan.norms[0].module] if self.plan.norms else None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        self._link()
        return result

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its inputs and the mixing weights [E, K]."""
        from darts_kernels._common import PRECISIONS
        from darts_kernels.cell import CellRun

        layout = cast("CellLayout", self.plan.layout)
        tracking = self._probe is None or self._probe.track_running_stats
        update = self.training and tracking
        precision = PRECISIONS[self.precision]
        run = CellRun(
            layout,
            precision,
            self._mean,
            self._var,
            momentum=0.1 if update else 0.0,
            train=self.training or not tracking,
            sparse=self.sparse,
        )
        if update:
            self._batches.add_(1)
        states = [x.to(precision.storage).contiguous() for x in inputs]
        nodes: Tensor = _CellFunction.apply(run, self._order, weights_EK, self.packed, *states)
        if len(self._outputs) < layout.nodes:
            first = (self._outputs[0] - layout.inputs) * layout.width
            nodes = nodes[:, first : first + len(self._outputs) * layout.width]
        return nodes.float() if self.cast_output else nodes


def _export_params(cell: FusedSearchCell, state: dict[str, Any], prefix: str, _: Any) -> None:
    """State dict hook: the packed parameters leave under the names of the module path."""
    packed = state.pop(f"{prefix}packed")
    for binding in cell.plan.params:
        name = f"{binding.module}.{binding.name}"
        values = packed[binding.start : binding.start + binding.count]
        state[prefix + name] = values.view(cell._shapes[name])


def _import_params(cell: FusedSearchCell, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """State dict hook: parameters of the module path are packed before they are loaded."""
    names = [f"{b.module}.{b.name}" for b in cell.plan.params]
    if not all(prefix + name in state for name in names):
        return
    packed = torch.zeros_like(cell.packed)
    for binding, name in zip(cell.plan.params, names, strict=True):
        value = state.pop(prefix + name)
        if value.shape != cell._shapes[name]:
            raise ConfigError(
                f"{prefix}{name} has shape {tuple(value.shape)} in the file; "
                f"this supernet needs {tuple(cell._shapes[name])}."
            )
        packed[binding.start : binding.start + binding.count] = value.reshape(-1).to(packed)
    state[f"{prefix}packed"] = packed


def fuse(supernet: nn.Module, precision: str = "tf32") -> Mapping[str, CellPlan]:
    """Put every searched cell that the plan can express on its fast path; returns all plans.

    On a GPU that is the fused kernels, the stem's included, on a CPU the batched torch calls of `batched`.
    A cell with an operation that has no known form stays on the module path; the log says so once.

    Args:
        supernet: on its device.
        precision: "fp32" (3xTF32 products), "tf32" or "bf16" (storage); alphas, statistics and sums are
            fp32 in all.

    Raises:
        ConfigError: the precision is unknown.
    """
    if precision not in FUSED_PRECISIONS:
        raise ConfigError(f"Unknown precision {precision!r}; choose {', '.join(FUSED_PRECISIONS)}.")
    # tensors without data stand for a GPU's: there a step is planned and compiled, never run
    on_gpu = next(supernet.parameters()).device.type in ("cuda", "meta")
    plans: dict[str, CellPlan] = {}
    last: FusedSearchCell | None = None
    for name, cell in list(supernet.named_modules()):
        if not isinstance(cell, SearchCell) or isinstance(cell, FusedSearchCell):
            continue
        plan = plan_cell(cell, cell.channels)
        plans[name] = plan
        if plan.layout is None:
            _say_once("; ".join(plan.reasons))
            _set_lean(cell, True)
            last = None
        else:
            last = fused_class(plan, on_gpu=on_gpu).adopt(cell, plan, precision)
    if last is not None and on_gpu:
        last.cast_output = True
    stem = getattr(supernet, "stem", None)
    if on_gpu and isinstance(stem, nn.Module):
        # cells that run as modules take fp32
        fuse_stems(stem, precision, low=all(plan.layout is not None for plan in plans.values()))
    return plans


def fused_class(plan: CellPlan, *, on_gpu: bool) -> type[FusedSearchCell]:
    """The class of a planned cell on a GPU or a CPU."""
    from darts_core.supernet.batched import BatchedSearchCell
    from darts_core.supernet.dense import BatchedDenseCell, FusedDenseCell
    from darts_core.supernet.plan_dense import DenseLayout

    if isinstance(plan.layout, DenseLayout):
        return FusedDenseCell if on_gpu else BatchedDenseCell
    return FusedSearchCell if on_gpu else BatchedSearchCell


def _set_lean(cell: nn.Module, lean: bool) -> None:
    """How the mixed operations of a cell on the module path sum their outputs."""
    for module in cell.modules():
        if isinstance(module, MixedOp):
            module.lean = lean


@functools.cache
def _say_once(reasons: str) -> None:
    """Log why cells are not fused, once a process: forecasts and rebuilds make the same network again."""
    log.info("some cells run module by module: %s", reasons)


def unfuse(supernet: nn.Module) -> None:
    """Put every fused cell back on the module path, values kept."""
    _set_lean(supernet, False)
    unfuse_stems(supernet)
    for cell in list(supernet.modules()):
        if isinstance(cell, FusedSearchCell):
            cell.restore()
