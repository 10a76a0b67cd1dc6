"""One space: a cell of two nodes in the NAS-Bench-201 skeleton, three operations an edge."""

from darts_core.spaces import SearchSpace, register_space

register_space(
    "small",
    SearchSpace(
        name="small",
        ops=("skip_connect", "nor_conv_3x3", "avg_pool_3x3"),
        cell_kinds=("cell",),
        inputs=1,
        nodes=2,
        skeleton="nasbench201",
    ),
    description="3 edges, 27 architectures",
)
