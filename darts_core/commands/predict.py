"""`darts-core predict`: classify image files with an exported model."""

from __future__ import annotations

import argparse
import json

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG, PNG, BMP, PPM, WebP, TIFF or GIF files"
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="folder that export wrote")
    parser.add_argument(
        "--runtime", help="the artifact to run, e.g. onnx or pt2; default: the best"
    )
    parser.add_argument("--top", type=int, default=1, help="classes to print an image (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object an image")


def run(args: argparse.Namespace) -> int:
    """Print the best classes of each image."""
    from darts_core.errors import ConfigError
    from darts_core.export import predict
    from darts_core.report.escape import plain_text

    if args.top < 1:
        raise ConfigError(f"--top {args.top} must be at least 1.")
    for found in predict(args.model, args.images, runtime=args.runtime):
        ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])[: args.top]
        if args.json:
            print(json.dumps({"image": found.image, "classes": dict(ranked)}))
        else:
            classes = ", ".join(f"{plain_text(name)} {share:.3f}" for name, share in ranked)
            print(f"{plain_text(found.image)}: {classes}")
    return 0
