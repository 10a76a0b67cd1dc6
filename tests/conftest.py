"""What all tests share."""

import atexit
import gc
import os
import shutil
import tempfile

# Timings hold a lock of the device in the temporary folder. Tests measure nothing, so processes of tests side
# by side need not wait for each other's: each has a folder of its own, and so have the commands it starts.
# A short name: sockets lie in it, whose paths may have 107 bytes
if os.environ.get("PYTEST_XDIST_WORKER"):
    _own = tempfile.mkdtemp(prefix=f"{os.environ['PYTEST_XDIST_WORKER']}-")
    os.chmod(_own, 0o711)  # a database server under root runs as another user
    os.environ["TMPDIR"] = tempfile.tempdir = _own
    atexit.register(shutil.rmtree, _own, ignore_errors=True)


def pytest_collection_finish(session):
    """What tests import outlives them: looking for garbage in it takes a twelfth of their time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
