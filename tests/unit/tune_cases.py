"""A search space, and an objective over it whose best point is known."""

from __future__ import annotations

SPACE = {"x": {"low": 0.0, "high": 1.0}, "kind": {"choices": ["a", "b"]}}


def curve(trial, epochs=4):
    """Rises with the epochs; the best is x = 0.3, kind a."""
    top = 1 - (trial.params["x"] - 0.3) ** 2 - 0.2 * (trial.params["kind"] == "b")
    for epoch in range(epochs):
        trial.report(epoch, val_accuracy=top * (epoch + 1) / epochs)
    return {"val_accuracy": top, "size": trial.params["x"]}
