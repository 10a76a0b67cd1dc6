"""Hydra launcher that runs elements and trials on Ray. Importing it loads neither torch nor ray."""
