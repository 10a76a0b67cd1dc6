"""Hydra sweeper over `darts_core.study`. Importing it loads neither torch nor optuna."""
