"""The dense code: stages split by `-`, one digit 1..4 a layer. Our own grammar; needs no torch."""

from __future__ import annotations

from darts_core.errors import ArchitectureError

__all__ = ["check_dense_code"]

DIGITS = "1234"
MAX_LAYERS = 64


def check_dense_code(code: str) -> str:
    """`code` itself when it is well formed.

    Raises:
        ArchitectureError: it is not; the sentence names the position (from 1).
    """
    previous = "-"
    for position, letter in enumerate(str(code) + "-", start=1):
        if letter not in DIGITS + "-" or (letter == "-" and previous == "-"):
            raise ArchitectureError(
                f"Dense code {str(code)[:80]!r}, position {position}: expected a digit 1..4 (a layer), "
                "with single '-' between stages, such as '112-21'."
            )
        previous = letter
    if len(str(code).replace("-", "")) > MAX_LAYERS:
        raise ArchitectureError(
            f"Dense code {str(code)[:80]!r} has more than {MAX_LAYERS} layers; use fewer."
        )
    return str(code)
