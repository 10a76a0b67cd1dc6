"""Candidate operations: the registry, the built-in families, and the primitives they declare."""

from darts_core.ops import conv as conv
from darts_core.ops import noise as noise
from darts_core.ops import simple as simple
from darts_core.ops.base import OPS, create_op, register_op

__all__ = ["OPS", "create_op", "register_op"]
