"""Python runs this at the start of a script in the zero-code mode, and of every Python that it starts.

It seeds the script's random numbers, then lets the environment's own file of this name do its part.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_here = os.path.dirname(os.path.abspath(__file__))
if os.environ.get("DARTS_SEED", "").isdigit():
    from darts_core.autosearch.seeding import install

    install(int(os.environ["DARTS_SEED"]))
_others = [folder for folder in sys.path if os.path.abspath(folder or ".") != _here]
_own = PathFinder.find_spec("sitecustomize", _others)
if _own is not None and _own.loader is not None:
    _own.loader.exec_module(importlib.util.module_from_spec(_own))
