"""What pictures of accuracy against measured time share: a logarithmic axis of shares, a title, a legend."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darts_core.report.png_figure import new_figure, only_data, plain_title, save_png

__all__ = ["finish", "run", "start"]


def start(width: float, height: float) -> tuple[Any, Any]:
    """A figure of that size in inches and its axes."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    only_data(axes)
    return figure, axes


def finish(
    figure: Any, to: Path, ticks: Mapping[float, str], *, time: str, metric: str, title: str
) -> Path:
    """Label the axes of a figure of `start` and write it to `to`.

    Args:
        figure: of shares of a time (horizontal) and a metric (vertical).
        to: the file.
        ticks: share -> what is written there.
        time: in words, what the shares are of.
        metric: in words.
        title: above all.
    """
    axes = figure.axes[0]
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel(time)
    axes.set_ylabel(metric)
    axes.set_title(plain_title(title), fontsize=9)
    # below, where it hides no network
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    figure.tight_layout()
    return save_png(figure, to)


def run(draw: Callable[..., Path], about: str | None, *, most: int = 1) -> None:
    """The command line of a picture: up to `most` results files, the picture."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help=f"results files, {most} at most")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    if args.picture.suffix.lower() != ".png":  # a results file that is the last word would be lost
        parser.error(
            f"the last word names the picture, which ends in .png: {args.picture} does not."
        )
    if len(args.results) > most:
        parser.error(f"{len(args.results)} results files are given, {most} can be drawn together.")
    print(draw(*args.results, to=args.picture))
