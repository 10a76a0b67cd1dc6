"""Networks that may be built by name: hand-designed ones, registered ones, a user's function, timm's.

Import from the modules: `named` (names of all kinds), `baselines`, `trust`, `weights`.
"""
