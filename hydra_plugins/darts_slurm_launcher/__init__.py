"""Hydra launcher: elements and trials as jobs of Slurm. Importing it loads neither torch nor submitit."""
