"""The DARTS cell space (arXiv:1806.09055): two kinds of cell, four nodes, eight operations."""

from darts_core.spaces.base import SearchSpace, register_space

__all__ = ["DARTS"]

DARTS = register_space(
    "darts",
    SearchSpace(
        name="darts",
        ops=(
            "none",
            "max_pool_3x3",
            "avg_pool_3x3",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
        ),
        cell_kinds=("normal", "reduce"),
        inputs=2,
        nodes=4,
        skeleton="darts",
        keep_edges=2,
        concat=True,
        norm_after_pool=True,
    ),
    description="DARTS cells: 8 operations, 4 nodes, 14 edges, normal and reduction cells",
)
