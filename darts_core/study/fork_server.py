"""Loaded first by the process that forks workers and trials: it ends at once with the one that started it.

Otherwise a study that is killed while the modules of its objective are being imported would leave that
import running. Imported by nobody else.
"""

from darts_core.store.procs import die_with_parent

die_with_parent()
