"""The console commands behind `darts_core.cli`: Hydra wrapper, help texts, argparse commands."""
