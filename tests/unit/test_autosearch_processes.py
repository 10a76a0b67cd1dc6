import errno
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from autosearch_workshop import BASE, one

from darts_core.autosearch.spec import Limits, Objective
from darts_core.store import keeper, procs


def test_what_a_trial_leaves_behind_ends_with_it(shop):
    workshop = shop(
        """
        import os, signal, subprocess, sys
        from darts_core import autosearch
        def train():
            child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
            process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
            autosearch.report(0.5, additional_data={"child": process.pid})
        """
    )
    row = one(workshop)
    assert row["state"] == "done"
    assert not procs.tree(None, workshop.mark)


def test_what_left_session_parent_and_mark_behind_ends_with_its_trial(shop):
    workshop = shop(
        """
        import subprocess, sys, time
        from darts_core import autosearch
        CHILD = (
            "import os, signal, sys, time\\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
            "if os.fork():\\n"
            "    time.sleep(1.0)\\n"  # long enough to be seen
            "    os._exit(0)\\n"
            "os.setsid()\\n"
            "time.sleep(60)\\n"
        )
        def train():
            process = subprocess.Popen([sys.executable, "-c", CHILD], env={}, start_new_session=True)
            process.wait()
            time.sleep(60)
        """
    )
    from dataclasses import replace

    row = one(workshop, replace(BASE, limits=Limits(trial_seconds=2.0)))
    assert row["reason"].startswith("time:")
    mine = [
        process.pid for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and _command(process.pid).endswith("time.sleep(60)\n")
    ]  # fmt: skip
    assert mine == []


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as stream:
            return stream.read().rstrip("\0")
    except OSError:
        return ""


def test_zero_code_mode_reads_printed_lines_and_survives_a_hanging_pattern(shop):
    from dataclasses import replace

    source = """
    import sys, argparse
    parser = argparse.ArgumentParser(); parser.add_argument("--x", type=int)
    x = parser.parse_known_args()[0].x
    print("y" * 100_000)
    for epoch in range(4):
        print(f"epoch {epoch}: loss 0.5 acc={0.1 * epoch * x:.2f}")
    """
    workshop = shop(source)
    metrics = (
        {"name": "acc", "regex": r"acc=([0-9.]+)"},
        {"name": "loss", "regex": r"loss ([0-9.]+)"},
    )
    row = one(workshop, replace(BASE, metrics=metrics), {"x": 2})
    assert (row["state"], row["training_iteration"]) == ("done", 4), row
    assert row["values"]["acc"] == pytest.approx(0.6)
    assert row["metrics"]["loss"] == 0.5
    row = one(workshop, replace(BASE, metrics=metrics, max_iterations=2), {"x": 2})
    assert (row["state"], row["training_iteration"]) == ("done", 2), row
    slow = ({"name": "acc", "regex": r"(y+)+z"},)
    row = one(workshop, replace(BASE, metrics=slow, limits=Limits(trial_seconds=0.6)), {"x": 2})
    assert (row["state"], row["reason"][:5]) == ("failed", "time:")


def test_zero_code_mode_reads_a_metric_file_of_the_output_folder(shop):
    from dataclasses import replace

    source = """
    import json, sys
    folder = next(a.split("=")[1] for a in sys.argv if a.startswith("--train_url="))
    print("loss 0.5")
    print("loss 0.25")
    json.dump({"acc": 0.75, "top_5": 0.9, "name": "text"}, open(folder + "/metric.json", "w"))
    """
    accuracy = {"name": "acc", "file": "metric.json", "key": "acc"}
    top = {"name": "top5", "file": "metric.json", "key": "top_5"}
    row = one(shop(source), replace(BASE, metrics=(accuracy, top)))
    assert (row["state"], row["training_iteration"], row["values"]) == ("done", 1, {"acc": 0.75})
    assert row["metrics"]["top5"] == 0.9
    # beside a pattern, the file belongs to the last iteration
    loss = {"name": "loss", "regex": "loss ([0-9.]+)"}
    spec = replace(BASE, metrics=(loss, accuracy), objectives=(Objective("loss", "min"),))
    row = one(shop(source), replace(spec, max_iterations=2))
    assert (row["state"], row["training_iteration"]) == ("done", 2)
    assert (row["metrics"]["loss"], row["metrics"]["acc"]) == (0.25, 0.75)
    for key, file in (("name", "metric.json"), ("none", "metric.json"), ("acc", "other.json")):
        lost = ({"name": "acc", "file": file, "key": key},)
        row = one(shop(source), replace(BASE, metrics=lost))
        assert (row["state"], row["values"]["acc"]) == ("failed", None)


def test_end_tree_finds_a_setsid_grandchild_and_spares_a_recycled_id(tmp_path):
    ready = tmp_path / "ready"
    child = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n"
        f"        open({str(ready)!r}, 'w').close()\n"
        "        time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    mark = f"tree-{tmp_path.name}-{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", child], env={**os.environ, procs.MARK: mark})
    process.wait()
    while not ready.exists():
        time.sleep(0.01)
    # parent gone, own session: found by the mark alone
    assert len(procs.tree(None, mark)) == 2
    assert procs.end_tree(None, mark, grace_seconds=0.2, limit_seconds=5)
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        true = procs.identity(innocent.pid)
        for wrong in (
            procs.Identity(true.pid, "1", true.boot),
            procs.Identity(true.pid, true.start, "another boot"),
        ):
            assert not procs.is_alive(wrong)
            assert procs.end_tree(wrong, "", grace_seconds=0, limit_seconds=1)
            procs.send(wrong, signal.SIGKILL)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_processes_are_ended_and_waited_for_where_the_kernel_gives_no_handles(monkeypatch):
    """Before Linux 5.3, below a filter of calls: nothing was signalled, and a keeper ended a living job."""

    def refused(_pid):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        who, looks = procs.identity(child.pid), []

        def ends_while_looked_at(_seconds):
            looks.append(procs.is_alive(who))
            procs.send(who, signal.SIGKILL)
            child.wait()

        monkeypatch.setattr(keeper.time, "sleep", ends_while_looked_at)
        keeper._wait_for(who)
        assert (looks, child.returncode) == ([True], -signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def test_the_first_process_of_a_container_is_a_command_and_that_of_a_machine_is_not(monkeypatch):
    """`docker run IMAGE darts-core train` was shown as interrupted by `docker exec ... jobs list`."""
    record = {"pid": 1, "start": "7", "boot": "b"}
    for namespace, found in (
        ("pid:[4026532201]", procs.Identity(1, "7", "b")),
        ("pid:[4026531836]", None),
    ):
        monkeypatch.setattr(os, "readlink", lambda path, name=namespace: name)
        assert procs.Identity.from_dict(record) == found


def test_a_trial_needs_the_standard_library_only():
    heavy = ("numpy", "yaml", "torch", "optuna", "sklearn")
    code = (
        "import sys, darts_core.autosearch.trial_main\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_script_of_the_zero_code_mode_has_its_model_file_kept(shop):
    from dataclasses import replace

    source = """
    import argparse
    parser = argparse.ArgumentParser(); parser.add_argument("--x", type=int)
    x = parser.parse_known_args()[0].x
    print("acc=0.5")
    if x > 1:
        open("model.pt", "w").write("weights")
    """
    metrics = ({"name": "acc", "regex": r"acc=([0-9.]+)"},)
    spec = replace(BASE, metrics=metrics, model_file="model.pt")
    # one that was not written costs no trial
    row = one(shop(source), spec, {"x": 1})
    assert (row["state"], row["model_path"]) == ("done", None)
    assert one(shop(source), spec, {"x": 2})["model_path"] == "model.pt"


def test_a_script_that_is_killed_from_outside_is_begun_again(shop):
    from dataclasses import replace

    source = """
    import os, signal
    if not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)  # as the system's out-of-memory killer does
    print("acc=0.5")
    """
    metrics = ({"name": "acc", "regex": r"acc=([0-9.]+)"},)
    row = one(shop(source), replace(BASE, metrics=metrics))
    assert (row["state"], row["attempt"], row["values"]) == ("done", 2, {"acc": 0.5})


@pytest.mark.parametrize("iterations", [None, 1])
def test_a_script_that_leaves_a_process_behind_has_ended_all_the_same(shop, iterations):
    from dataclasses import replace

    source = """
    import subprocess, sys
    # it holds what the script prints into
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    for epoch in range(3):
        print("acc=0.5")
    """
    metrics = ({"name": "acc", "regex": r"acc=([0-9.]+)"},)
    spec = replace(
        BASE, metrics=metrics, max_iterations=iterations, limits=Limits(trial_seconds=20.0)
    )
    workshop = shop(source)
    row = one(workshop, spec)
    found = (row["state"], row["values"], row["training_iteration"])
    assert found == ("done", {"acc": 0.5}, iterations or 3), row
    assert not procs.tree(None, workshop.mark)


GOES_ON = """
    import os, signal
    from darts_core import autosearch
    def train():
        path = os.path.join(autosearch.checkpoint_dir, "epoch")
        start = int(open(path).read()) if os.path.exists(path) else 0
        for epoch in range(start, 3):
            with open(path, "w") as stream:
                stream.write(str(epoch + 1))
            autosearch.reporter(acc=0.1 * epoch, training_iteration=epoch + 1)
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
"""
PRINTS = """
    import os, signal
    if not os.path.exists("done"):
        print("acc=0.2")
        open("done", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    print("nothing is left to train")
"""


@pytest.mark.parametrize(
    ("source", "metrics", "iterations"),
    [(GOES_ON, (), 3), (PRINTS, ({"name": "acc", "regex": r"acc=([0-9.]+)"},), 1)],
)
def test_a_sitting_that_finds_all_done_keeps_what_was_reported(shop, source, metrics, iterations):
    from dataclasses import replace

    row = one(shop(source), replace(BASE, metrics=metrics))
    found = (row["state"], row["attempt"], row["values"], row["training_iteration"])
    assert found == ("done", 2, {"acc": 0.2}, iterations), row["reason"]
    assert row["taken_over"] is True


SAYS_NOTHING = """
    import os
    from darts_core import autosearch
    def train():
        begun = os.path.join(autosearch.checkpoint_dir, "begun")
        if not os.path.exists(begun):
            open(begun, "w").close()
            for epoch in range(2):
                autosearch.reporter(acc=0.1)
            os._exit(7)
        # a checkpoint that it takes for a finished one
"""


@pytest.mark.parametrize(("most", "state"), [(None, "failed"), (3, "failed"), (2, "done")])
def test_what_a_broken_off_attempt_reported_is_no_result(shop, most, state):
    from dataclasses import replace

    spec = replace(BASE, limits=Limits(retries=1), max_iterations=most)
    row = one(shop(SAYS_NOTHING), spec)
    assert (row["state"], row["attempt"]) == (state, 2)
    assert row.get("taken_over", False) is (state == "done")
    told = "reported no usable acc; .*; an earlier attempt failed after iteration 2, which may"
    assert bool(re.search(told, row["reason"])) is (state == "failed")
    assert row["values"] == {"acc": 0.1 if state == "done" else None}
