"""Each trial and each confirming run gets its seed, whichever way the code draws."""

import subprocess
import sys
from dataclasses import replace

import pytest
from autosearch_workshop import BASE, log_of, one

from darts_core.autosearch.boot_file import seed_option

ACC = ({"name": "acc", "regex": r"acc=([0-9.]+)"},)
ZERO = replace(BASE, metrics=ACC)


def values(workshop, spec, seeds):
    rows = [one(workshop, spec, seed=seed) for seed in seeds]
    assert all(row["state"] == "done" for row in rows), log_of(workshop, rows[0])
    return [row["values"]["acc"] for row in rows]


@pytest.mark.parametrize(
    "draw",
    ["import random; x = random.random()",
     "import numpy as np; x = float(np.random.rand())",
     "import numpy; from numpy.random import rand; x = float(rand())"],
)  # fmt: skip
def test_a_script_that_sets_no_seed_draws_by_the_trials_seed(shop, draw):
    workshop = shop(f"{draw}\nprint(f'acc={{x:.9f}}')")
    a, again, b = values(workshop, ZERO, (1, 1, 2))
    assert a == again != b


def test_a_network_made_at_module_level_is_drawn_by_the_trials_seed(shop):
    workshop = shop(
        """
        import torch
        from darts_core import autosearch
        NET = torch.nn.Linear(2, 1)
        def train():
            drawn = float(torch.rand(()))
            weight = float(NET.weight.detach().flatten()[0])
            autosearch.report(weight, additional_data={"drawn": drawn})
        """
    )
    a, again, b = (one(workshop, seed=seed) for seed in (1, 1, 2))
    assert a["values"]["acc"] == again["values"]["acc"] != b["values"]["acc"]
    # what train() draws does not depend on what was drawn while the file was loaded
    drawn = [row["additional_data"]["drawn"] for row in (a, again, b)]
    assert drawn[0] == drawn[1] != drawn[2]


STRICT = """
import argparse, random
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=int)
parser.add_argument("--manual-seed", "--seed", type=int, default=0)
args = parser.parse_args()
random.seed(args.manual_seed)
print(f"acc={random.random():.9f} {args.manual_seed}")
"""


def test_a_script_with_a_seed_option_gets_the_trials_seed_unless_the_user_set_it(shop):
    named = replace(ZERO, arguments="named")
    a, again, b = values(shop(STRICT), named, (1, 1, 2))
    assert a == again != b
    own = values(shop(STRICT, arguments=("--manual-seed=5",)), named, (1, 2))
    assert own[0] == own[1]


def test_the_seed_option_of_a_script_is_found_without_running_it(tmp_path):
    path = tmp_path / "m.py"
    for text, found in (
        (STRICT, "--manual-seed"),
        ("@click.option('--seed', default=1)\ndef main(seed): ...", "--seed"),
        ("p.add_argument('--seeds')", None),
        ("print('--seed')", None),
        ("def broken(:", None),
    ):
        path.write_text(text)
        assert seed_option(path) == found


def test_what_is_not_imported_is_not_imported_for_its_seed(shop):
    workshop = shop("import sys; print('acc=1', 'torch' in sys.modules, 'numpy' in sys.modules)")
    row = one(workshop, ZERO)
    assert "acc=1 False False" in log_of(workshop, row)


def test_the_environments_own_start_file_still_runs(shop, tmp_path):
    workshop = shop("import builtins, random; print('acc=%.9f' % random.random(), builtins.own)")
    (tmp_path / "code" / "sitecustomize.py").write_text("import builtins; builtins.own = 'mine'")
    rows = [one(workshop, ZERO, seed=3) for _ in range(2)]
    assert " mine" in log_of(workshop, rows[0])
    assert rows[0]["values"] == rows[1]["values"]


def test_a_seeded_module_keeps_its_loader():
    code = (
        "from darts_core.autosearch import seeding; seeding.install(3)\n"
        "import numpy; print(type(numpy.__loader__).__name__, type(numpy.__spec__.loader).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SourceFileLoader", "SourceFileLoader"]
