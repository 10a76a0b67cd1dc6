"""Loaded first by the process that forks workers and trials: it ends at once with the one that started it,
and what it has forked ends with it.

Otherwise a study that is killed while the modules of its objective are being imported would leave that
import running, and a worker whose fork server was killed would run on while its study takes it for dead.
Imported by nobody else.
"""

import os

from darts_core.store.procs import die_with_parent

die_with_parent()
os.register_at_fork(after_in_child=die_with_parent)
