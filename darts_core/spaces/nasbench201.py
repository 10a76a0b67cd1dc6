"""The NAS-Bench-201 cell space (arXiv:2001.00326): one kind of cell, three nodes, five operations."""

from darts_core.spaces.base import SearchSpace, register_space

__all__ = ["NASBENCH201"]

NASBENCH201 = register_space(
    "nasbench201",
    SearchSpace(
        name="nasbench201",
        ops=("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
        cell_kinds=("cell",),
        inputs=1,
        nodes=3,
        skeleton="nasbench201",
    ),
    description="NAS-Bench-201 cells: 5 operations, 6 edges, 15,625 architectures",
)
