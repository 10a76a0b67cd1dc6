"""Training scripts in the manner of well-known ones, unchanged: what is searched, read and seeded.

Changed lines of the scripts: none. What each needs stands in its job file.
"""

import textwrap
from pathlib import Path

import pytest
from autosearch_workshop import log_of, one

from darts_core.autosearch.job_yaml import parse_file

# a strict parser, a bar redrawn by `\r` and backspaces, a network made at module level
BAR = r"""
import argparse, sys
import numpy as np
parser = argparse.ArgumentParser(description="CIFAR10")
parser.add_argument("--lr", default=0.1, type=float)
parser.add_argument("--resume", "-r", action="store_true")
args = parser.parse_args()
NET = np.random.rand(4)  # made while the file is loaded
def bar(step, total, text):
    sys.stdout.write(" [" + "=" * step + ">" + "." * (total - step) + "]" + text + " " * 10)
    sys.stdout.write("\b" * (len(text) + 10 + total // 2) + f" {step}/{total} ")
    sys.stdout.write("\r" if step < total else "\n")
for epoch in range(2):
    print("\nEpoch: %d" % epoch)
    for step in range(1, 9):
        bar(step, 8, "| Loss: %.3f | Acc: %.3f%% (%d/%d)" % (NET[0], 10 * step * args.lr + epoch, step, 8))
print("weight %.9f" % NET[0])
"""
# two bars a line: a Keras-like fit with validation, colours included
KERAS = r"""
import random, sys
print("Epoch 1/1")
for step in range(1, 4):
    bar = "\x1b[1m%d/3\x1b[0m \x1b[32m%s\x1b[0m" % (step, "=" * step)
    sys.stdout.write("\r" + bar + " \x1b[1m5s\x1b[0m 10ms/step - accuracy: %.4f - loss: 0.5" % (0.2 * step))
sys.stdout.write("\r3/3 === 6s 12ms/step - accuracy: 0.6100 - val_accuracy: 0.7300 - val_loss: 0.3\n")
sys.stdout.write("\r1/2 = accuracy: 0.1 - loss: 9\r2/2 == accuracy: 0.7200 - loss: 0.3\n")
print("weight %.9f" % random.random())
"""
# a click-free command line interface with sub-command and dotted options
LIGHTNING = r"""
import argparse, random
parser = argparse.ArgumentParser()
sub = parser.add_subparsers(dest="command", required=True)
fit = sub.add_parser("fit")
fit.add_argument("--model.lr", type=float, dest="lr", required=True)
fit.add_argument("--seed_everything", type=int, required=True)
fit.add_argument("--trainer.fast_dev_run", action="store_true")
args = parser.parse_args()
random.seed(args.seed_everything)
print("Epoch 0: 100%%|##########| 3/3 [00:00<00:00, train_loss=0.5, val_acc=%.3f]" % args.lr)
print("weight %.9f" % random.random())
"""
# a report table in wide columns, no parser at all: overrides as a.b=value
HYDRA = r"""
import random, sys
overrides = dict(word.split("=", 1) for word in sys.argv[1:])
assert set(overrides) == {"svc.C", "seed"}, overrides
random.seed(int(overrides["seed"]))
print("              precision    recall  f1-score   support")
print("    accuracy                           %.2f       360" % float(overrides["svc.C"]))
print("weight %.9f" % random.random())
"""
CASES = {
    "bar": (BAR, "lr", "arguments: named", r"Acc: ([0-9.]+)%", 2, 0.5, 41.0),
    "keras": (KERAS, "lr", "arguments: none", r"val_accuracy: ([0-9.]+)", 1, 0.5, 0.73),
    "lightning": (
        LIGHTNING, "model.lr", "command: python boot.py fit --model.lr {model.lr} --seed_everything {seed}",
        r"val_acc=([0-9.]+)", 1, 0.5, 0.5,
    ),
    "hydra": (
        HYDRA, "svc.C", "command: python boot.py svc.C={svc.C} seed={seed}",
        r"accuracy\s+([0-9.]+)", 1, 0.5, 0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_script_runs_unchanged(shop, tmp_path, name):
    script, setting, line, regex, iterations, value, expected = CASES[name]
    job = f"""
    general:
      {line}
      metrics: [{{name: acc, regex: '{regex}'}}, {{name: weight, regex: 'weight ([0-9.]+)'}}]
    search_space: [{{params: [{{type: continuous_param, name: {setting}, start: 0.1, stop: 1}}]}}]
    search_algorithm: {{type: random_search, reward_attr: acc}}
    """
    path = Path(tmp_path / "job.yaml")
    path.write_text(textwrap.dedent(job))
    workshop, spec = shop(script), parse_file(path)
    rows = [one(workshop, spec, {setting: value}, seed=seed) for seed in (1, 1, 2)]
    assert [row["state"] for row in rows] == ["done"] * 3, log_of(workshop, rows[0])
    assert rows[0]["values"]["acc"] == pytest.approx(expected)
    assert rows[0]["training_iteration"] == iterations
    # what is printed after the last iteration is kept, and every seed draws its own network
    first, again, other = (row["metrics"]["weight"] for row in rows)
    assert first == again != other
