"""Hydra sweeper over `darts_core.tune`. Importing it loads neither torch nor optuna."""
