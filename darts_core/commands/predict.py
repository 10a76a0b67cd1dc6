"""`darts-core predict`: what a model says of files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from darts_core.commands.arguments import add_plugins
from darts_core.commands.given_model import SETTINGS_HELP, given_model
from darts_core.commands.json_alone import json_alone

if TYPE_CHECKING:
    from darts_core.export import Numbers

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="FILE",
        help="JPEG, PNG, BMP, PPM, WebP, TIFF or GIF images; .npy files of one sample; a text; and "
        + SETTINGS_HELP,
    )
    parser.add_argument(
        "--model", metavar="DIR",
        help="folder that export wrote; or a model.pt of ours, or its folder, which runs as it is",
    )  # fmt: skip
    parser.add_argument(
        "--runtime", help="the artifact to run, e.g. onnx or pt2; default: the best"
    )
    parser.add_argument(
        "--prefer", metavar="speed|exact",
        help="instead: the fastest artifact as measured, or the closest to the original",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=1, help="classes to print an image (default 1)")
    add_plugins(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object an image")


def run(args: argparse.Namespace) -> int:
    """Print the best classes of each file, or its numbers."""
    with json_alone(args.json) as say:
        return _answer(args, say)


def _answer(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    from darts_core.errors import ConfigError
    from darts_core.export import Numbers, predict
    from darts_core.report.escape import plain_text
    from darts_core.runlog import plain

    if args.top < 1:
        raise ConfigError(f"--top {args.top} must be at least 1.")
    asked = [text for text in (args.runtime, args.prefer) if text]
    given, files = given_model(args.images, args.model, args.plugins, runtimes=asked)
    if not files:
        raise ConfigError("Give the files that the model shall be asked about.")
    model, runtime = (given.place, args.runtime) if given.exported else (given.loaded(), None)
    prefer = args.prefer if given.exported else None
    for found in predict(model, files, runtime=runtime, prefer=prefer):
        if isinstance(found, Numbers):
            say(_numbers_line(found, args.json))
            continue
        ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])[: args.top]
        if args.json:
            say(json.dumps(plain({"image": found.image, "classes": dict(ranked)})))
        else:
            classes = ", ".join(f"{plain_text(name)} {share:.3f}" for name, share in ranked)
            say(f"{plain_text(found.image)}: {classes}")
    return 0


def _numbers_line(found: Numbers, as_json: bool) -> str:
    from darts_core.report.escape import plain_text
    from darts_core.runlog import plain

    if as_json:
        return json.dumps(plain({"image": found.image, "values": found.values}))
    values = ", ".join(f"{plain_text(name)} {value:.6g}" for name, value in found.values.items())
    return f"{plain_text(found.image)}: {values}"
