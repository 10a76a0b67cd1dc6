"""What a script of the zero-code mode leaves at its end: also when it is ended early, or while it ends."""

import json
from dataclasses import replace

import pytest
from autosearch_workshop import BASE, log_of, one

# a stand-in for a supernet, so that no torch is needed; it takes a while to say what it found
SCRIPT = """
import os, signal, sys, time
from darts_core.autosearch.closing import watch
from darts_core.autosearch.contract import current

class Supernet:
    @property
    def steps(self): return self
    def state(self): return {"moved": True}
    def derive(self):
        time.sleep(0.2)
        if "while_ending" in sys.argv: os.kill(os.getpid(), signal.SIGTERM)
        return "found"

if "own" in sys.argv: signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
if "nothing" not in sys.argv:
    current().searchables.append(Supernet())
    watch(current())
    watch(current())
if "fork" in sys.argv and os.fork() == 0: sys.exit(0)  # a child has nothing to say
for epoch in range(3):
    print("acc", epoch / 10, flush=True)
    if "early" in sys.argv: time.sleep(0.5)
"""


@pytest.mark.parametrize("how", ["", "early", "early own", "while_ending", "fork", "nothing"])
def test_a_script_leaves_what_it_found(shop, how):
    workshop = shop(SCRIPT)
    spec = replace(
        BASE,
        metrics=({"name": "acc", "regex": "acc ([0-9.]+)"},),
        arguments="template",
        command=f"python boot.py {how}",
        max_iterations=1 if "early" in how else None,
    )
    row = one(workshop, spec, {"x": 1})
    folder = workshop.version / "autosearch/trials" / row["trial_id"]
    assert row["state"] == "done", log_of(workshop, row)
    path = folder / "architecture.json"
    if how == "nothing":
        assert not path.exists()
    else:
        assert json.loads(path.read_text()) == {"value": "found", "moved": True}
    assert "Exception" not in log_of(workshop, row)


def test_a_train_that_ends_by_sys_exit_leaves_what_any_other_does(shop):
    """As one that wraps a script's `sys.exit(main())` does."""
    workshop = shop(
        """
        import sys
        from darts_core import autosearch
        from darts_core.autosearch.contract import current
        class Network:
            def save(self, trial): (trial.folder / "kept").touch()
        def train():
            current().networks.append(Network())
            autosearch.reporter(acc=0.5)
            sys.exit(autosearch.config["x"])
        def eval():
            autosearch.reporter(acc=0.75)
        """
    )
    row = one(workshop, config={"x": 0})
    assert (row["state"], row["values"]) == ("done", {"acc": 0.75}), log_of(workshop, row)
    kept = workshop.version / "autosearch/trials" / row["trial_id"] / "kept"
    assert kept.is_file()
    kept.unlink()
    row = one(workshop, config={"x": 5})
    assert (row["state"], row["reason"][:20]) == ("failed", "crash: exit status 5")
    assert not kept.exists()
