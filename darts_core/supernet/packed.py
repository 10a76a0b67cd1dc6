"""The searched cell whose parameters are packed into one tensor: what all fast paths share.

An optimizer updates a packed cell in one launch, and kernels read its weights and running statistics where
they lie. Only elementwise optimizers (SGD, Adam ...) see no difference to the module path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.supernet.branches import CellPlan
from darts_core.supernet.cell import SearchCell

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["PackedCell"]


class PackedCell(SearchCell):
    """A searched cell whose params lie in one tensor; made from a `SearchCell`, of which it keeps the names.

    State dicts are translated both ways, so that a checkpoint of the module path loads here and the other
    way round. Here the cell still runs by its own modules; a subclass runs the plan.
    """

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
    def adopt(cls, cell: SearchCell, plan: CellPlan, precision: str) -> PackedCell:
        """Turn `cell` into a packed cell in place: its parameters move into `packed`."""
        fused: PackedCell = cell  # type: ignore[assignment]
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
        # a cell is packed where its parameters move or are held fast together (`plan_cell`)
        fused.packed = nn.Parameter(flat, requires_grad=like.requires_grad)
        fused._hooks = [
            fused._register_state_dict_hook(_export_params),
            fused.register_load_state_dict_pre_hook(_import_params),
        ]
        fused._link()
        return fused

    def restore(self) -> SearchCell:
        """Become an ordinary `SearchCell` again, with the present values."""
        modules = dict(self.named_modules())
        flat, moves = self.packed.detach(), self.packed.requires_grad
        for binding in self.plan.params:
            shape = self._shapes[f"{binding.module}.{binding.name}"]
            value = flat[binding.start : binding.start + binding.count].view(shape).clone()
            parameter = nn.Parameter(value, requires_grad=moves)
            setattr(modules[binding.module], binding.name, parameter)
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

    def sections(self, layout: CellLayout) -> dict[str, Tensor]:
        """The packed params by the names and shapes of the layout's sections."""
        # one split and not slices: each slice's gradient would be as long as all params
        pieces = self.packed.split([section.size for section in layout.sections.values()])
        return {
            name: piece.view(section.shape)
            for (name, section), piece in zip(layout.sections.items(), pieces, strict=True)
        }

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The module path's output with the packed params, statistics updated as the plan does."""
        modules = dict(self.named_modules())
        values = {}
        for binding in self.plan.params:
            name = f"{binding.module}.{binding.name}"
            flat = self.packed[binding.start : binding.start + binding.count]
            values[name] = flat.view(self._shapes[name])
        for name, value in values.items():
            module, leaf = name.rsplit(".", 1)
            modules[module].__dict__[leaf] = value
        try:
            with _own_statistics(self):
                return super().forward(inputs, weights_EK)
        finally:
            for name in values:
                module, leaf = name.rsplit(".", 1)
                modules[module].__dict__.pop(leaf)


def _export_params(cell: PackedCell, state: dict[str, Any], prefix: str, _: Any) -> None:
    """State dict hook: the packed parameters leave under the names of the module path."""
    packed = state.pop(f"{prefix}packed")
    for binding in cell.plan.params:
        name = f"{binding.module}.{binding.name}"
        values = packed[binding.start : binding.start + binding.count]
        state[prefix + name] = values.view(cell._shapes[name])


def _import_params(cell: PackedCell, state: dict[str, Any], prefix: str, *_: Any) -> None:
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


@contextmanager
def _own_statistics(cell: PackedCell) -> Iterator[None]:
    """Every norm with running statistics of its own: norms that share theirs must not update them twice."""
    modules = dict(cell.named_modules())
    for binding in cell.plan.norms:
        norm = modules[binding.module]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            norm._buffers[name] = norm._buffers[name].clone()  # type: ignore[union-attr]
    try:
        yield
    finally:
        with torch.no_grad():
            # norms with one place have one value, so any of them may be the last
            for binding in cell.plan.norms:
                norm = modules[binding.module]
                span = slice(binding.start, binding.start + binding.count)
                cell._mean[span] = norm.running_mean  # type: ignore[assignment]
                cell._var[span] = norm.running_var  # type: ignore[assignment]
                norm._buffers["running_mean"] = cell._mean[span]
                norm._buffers["running_var"] = cell._var[span]
                norm._buffers["num_batches_tracked"] = cell._batches[0]
            if cell.training and (cell._probe is None or cell._probe.track_running_stats):
                cell._batches.add_(1)
