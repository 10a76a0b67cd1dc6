"""A job file proposed from a training script, without running it."""

import shlex
from types import SimpleNamespace

import pytest

from darts_core.autosearch.command_line import parse_command
from darts_core.autosearch.plan_files import build_plan
from darts_core.commands.jobs.init import proposal, run_init
from darts_core.commands.jobs.script_reading import Script, read_script
from darts_core.commands.jobs.suggest import suggest
from darts_core.errors import JobError

SCRIPT = """
import argparse
from torch import nn
class Net(nn.Module): ...
parser = argparse.ArgumentParser()
parser.add_argument("--lr", "-l", type=float, default=0.1)
parser.add_argument("--weight-decay", type=float, default=5e-5)
parser.add_argument("--momentum", type=float, default=0.9)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--fast", action="store_true")
args = parser.parse_args()
raise SystemExit("never run")
print(f"epoch {1}: loss {0.3:.3f}, val_acc={0.9:.2f}")
print("Test set: Accuracy: {}/{} ({:.0f}%)".format(1, 2, 50))
"""


def test_a_script_is_read_without_being_run(tmp_path):
    (tmp_path / "main.py").write_text(SCRIPT)
    script = read_script(tmp_path)
    assert (script.boot_file, script.seed) == ("main.py", "--seed")
    assert script.options == {
        "lr": 0.1,
        "weight_decay": 5e-5,
        "momentum": 0.9,
        "epochs": 10,
        "seed": 1,
    }
    assert list(script.networks) == ["Net"]
    assert script.epochs == 10
    assert {"loss", "val_acc"} <= {item.name for item in script.metrics}


def test_the_proposal_is_a_job_file_that_the_engine_takes(tmp_path, capsys):
    (tmp_path / "main.py").write_text(SCRIPT)
    job = tmp_path / "job.yaml"
    arguments = SimpleNamespace(folder=str(tmp_path), log=None, write=str(job), network=False)
    assert run_init(None, arguments) == 0
    assert "autosearch.searchable(Net(...), (C, H, W))" in capsys.readouterr().out
    step = build_plan([job]).steps[0]
    assert step.objectives[0].metric == "val_acc"
    assert step.baseline_configuration() == {"lr": 0.1, "weight_decay": 5e-5, "momentum": 0.9}
    assert step.command.startswith("python main.py --lr {lr} --weight-decay {weight_decay}")
    assert step.command.endswith("--seed {seed}")
    with pytest.raises(JobError, match="exists already"):
        run_init(None, arguments)


# training figures are printed first, the held-out one has no accuracy in its name, widths stand in the class
FORECAST = """
import argparse
from torch import nn
class Forecaster(nn.Module):
    def __init__(self, dropout, channels=16):
        self.first = nn.Conv1d(1, 32, 5)
        self.second = nn.Conv1d(32, 2 * channels, 5)
        self.head = nn.Linear(32, 24)
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--epochs", type=int, default=6)
a = parser.parse_args()
model = Forecaster(dropout=0.1)
print(f"epoch 1 | train loss {0.5:.4f} | valid rmse {0.6:.4f}")
print(f"final test rmse {0.4:.4f}")
"""


@pytest.mark.parametrize(
    ("kind", "name", "default"),
    [
        ("float", "momentum", 0.9), ("float", "gamma", 0.99), ("float", "gamma", 0.999),
        ("float", "ema-momentum", 0.99996), ("float", "dropout", 0.9999999), ("float", "lr", 0.0123456789),
        ("int", "hidden", 1234567),
    ],
)  # fmt: skip
def test_the_proposal_holds_the_default_as_it_is_and_a_range_around_it(
    tmp_path, kind, name, default
):
    option = f'parser.add_argument("--{name}", type={kind}, default={default!r})'
    (tmp_path / "train.py").write_text(
        f"import argparse\nparser = argparse.ArgumentParser()\n{option}\n"
        "parser.parse_args()\nprint(f'val_acc {0.5:.2f}')\n"
    )
    job = tmp_path / "job.yaml"
    job.write_text(proposal(read_script(tmp_path)))
    step = build_plan([job]).steps[0]
    assert step.baseline_configuration() == {name.replace("-", "_"): default}


def test_options_that_take_some_values_alone_are_proposed_with_these(tmp_path):
    """A number between them is refused by the script's own parser."""
    lines = [
        "import argparse", "p = argparse.ArgumentParser()",
        "p.add_argument('--hidden', type=int, choices=(16, 32, 64), default=32)",
        "p.add_argument('--optimizer', choices=['sgd', 'adam'], default='sgd')",
        "p.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')",
        "p.add_argument('--activation', choices=sorted(NAMES), default='relu')",
        "p.add_argument('--width', type=int, choices=SIZES, default=16)",
        "p.add_argument('--layers', type=int, default=2)",
        "p.parse_args()", "print(f'val_acc={0.5}')",
    ]  # fmt: skip
    (tmp_path / "main.py").write_text("\n".join(lines))
    job = tmp_path / "job.yaml"
    job.write_text(proposal(read_script(tmp_path)))
    step = build_plan([job]).steps[0]
    assert step.baseline_configuration() == {"layers": 2, "hidden": 32, "optimizer": "sgd"}
    found = {name: dimension.choices for name, dimension in step.space.items()}
    assert found["hidden"] == (32, 16, 64)
    assert found["optimizer"] == ("sgd", "adam")
    assert step.command.endswith("--layers {layers} --hidden {hidden} --optimizer {optimizer}")


def test_held_out_figures_are_proposed_before_training_and_test_figures(tmp_path, capsys):
    (tmp_path / "forecast.py").write_text(FORECAST)
    job = tmp_path / "job.yaml"
    assert (
        run_init(
            None, SimpleNamespace(folder=str(tmp_path), log=None, write=str(job), network=False)
        )
        == 0
    )
    (step,) = build_plan([job]).steps
    assert (step.objectives[0].metric, step.objectives[0].mode) == ("valid_rmse", "min")
    # a test figure is named so, that it is shown and never selected on
    assert [item["name"] for item in step.metrics] == ["valid_rmse", "train_loss", "test_rmse"]
    assert "# max_iterations: 6" in job.read_text()
    assert "# scheduler: {type: async_hyperband, grace_period: 2}" in job.read_text()
    said = capsys.readouterr().out
    assert "line 6, behind nn.Conv1d(1, 32, 5)" in said
    assert "nn.Linear(32, 24)" not in said  # the output's width is no choice
    assert "autosearch.WidthChoice([8, 16, 32])" in said
    assert (
        "autosearch.WidthChoice([(2 * channels) // 4, (2 * channels) // 2, 2 * channels])" in said
    )
    assert "forecast.py:13: model = autosearch.searchable(Forecaster(dropout=0.1), (C, T))" in said


@pytest.mark.parametrize(
    ("line", "name", "mode"),
    [("loss 0.5 acc 0.9", "acc", "max"), ("loss 0.5 mae 3.1", "mae", "min"), ("loss 1 r2 0.9", "r2", "max"),
     ("loss 4.2 ppl 66.7", "ppl", "min"), ("loss 0.5 lr 0.1", "loss", "min"),
     ("train_loss 0.5 train_acc 0.9 lr 0.1", "train_acc", "max"), ("train_loss 0.5 dice 0.8", "dice", "max"),
     ("Train Loss: 0.5 LR: 0.001 Time: 3.2 grad_norm: 1.5", "Train_Loss", "min"),
     ("test_acc 0.9 samples/s 812.5 learning_rate 0.1 GPU mem 3.1", "test_acc", "max"),
     ("S-measure 0.9 train_loss 0.5 0.2 s/img 0.1", "S_measure", "max"),
     ("val_time_error 0.9 train_loss 0.5", "val_time_error", "min")],
)  # fmt: skip
def test_what_a_task_is_judged_by_is_proposed_before_its_loss(line, name, mode):
    text = proposal(Script("train.py", metrics=suggest([line])))
    assert f"  reward_attr: {name}\n  mode: {mode}\n" in text


def test_a_search_of_the_network_is_a_job_file_that_the_engine_takes(tmp_path):
    (tmp_path / "forecast.py").write_text(FORECAST)
    (tmp_path / "job.yaml").write_text(proposal(read_script(tmp_path), network=True))
    (step,) = build_plan([tmp_path / "job.yaml"]).steps
    assert step.algorithm == "differentiable_search"
    assert step.baseline_configuration() == {"architecture": "baseline"}
    assert (step.command, step.max_iterations) == ("python forecast.py", 6)
    assert (step.objectives[0].metric, step.objectives[0].mode) == ("valid_rmse", "min")


def test_metrics_come_from_a_log_where_there_is_one(tmp_path):
    (tmp_path / "train.py").write_text("if __name__ == '__main__': ...")
    # as a terminal shows it: `jobs suggest` reads the same lines
    log = "\r1/2 valid_acc \x1b[32m0.3\x1b[0m\r2/2 valid_acc \x1b[32m0.5\x1b[0m\n"
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "log.txt").write_bytes(log.encode(encoding))
        script = read_script(tmp_path, tmp_path / "log.txt")
        found = [(item.name, item.lines, item.last) for item in script.metrics]
        assert found == [("valid_acc", 1, 0.5)]
    assert "seeded when it imports them" in "".join(proposal(script).replace("\n  #", ""))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "holds no script at its top"),
        ("x = 1", "holds no script at its top"),
        ("def broken(:\n# __main__", r"a\.py is not valid Python"),
    ],
)
def test_what_is_no_script_is_told(tmp_path, text, told):
    if text:
        (tmp_path / "a.py").write_text(text)
    with pytest.raises(JobError, match=told):
        read_script(tmp_path)


BLOCKS = """
import argparse, torch
from torch import nn
class Residual(nn.Module):
    def __init__(self, width):
        self.fc = nn.Linear(width, width)
class Net(nn.Module):
    def __init__(self, width=128, blocks=4):
        self.stem = nn.Linear(30, width)
        self.blocks = nn.Sequential(*[Residual(width) for _ in range(blocks)])
        self.head = nn.Linear(width, 2)
parser = argparse.ArgumentParser()
parser.add_argument("--blocks", type=int, default=4)
parser.add_argument("--out", default="net.pt")
a = parser.parse_args()
net = Net()
print(f"val acc {50:.1f}% inference {3:.2f} ms")
torch.save(net.state_dict(), a.out)
"""


def test_a_block_is_no_network_and_the_saved_model_and_the_time_are_proposed(tmp_path, capsys):
    (tmp_path / "train.py").write_text(BLOCKS)
    job = tmp_path / "job.yaml"
    arguments = SimpleNamespace(folder=str(tmp_path), log=None, write=str(job), network=False)
    assert run_init(None, arguments) == 0
    said = capsys.readouterr().out
    assert "searchable(Net(), (VALUES,))" in said
    assert "Residual" not in said
    (step,) = build_plan([job]).steps
    assert step.model_file == "net.pt"
    assert [(o.metric, o.mode) for o in step.objectives] == [
        ("val_acc", "max"),
        ("inference", "min"),
    ]
    blocks = step.space["blocks"]
    assert (blocks.integer, blocks.low, blocks.high) == (True, 2, 8)


def test_names_with_spaces_stay_one_word_in_what_is_proposed(tmp_path, capsys):
    folder, job = tmp_path / "my code", tmp_path / "my job.yaml"
    folder.mkdir()
    (folder / "my script.py").write_text(SCRIPT)
    arguments = SimpleNamespace(folder=str(folder), log=None, write=str(job), network=False)
    assert run_init(None, arguments) == 0
    line = next(text for text in capsys.readouterr().out.splitlines() if "jobs create" in text)
    words = shlex.split(line)
    assert words[words.index("--code") + 1] == str(folder)
    assert words[words.index("--config") + 1] == str(job)
    assert parse_command(build_plan([job]).steps[0].command).boot_file == "my script.py"


@pytest.mark.parametrize("name", [".venv", "environment"])
def test_packages_beside_the_script_are_not_read(tmp_path, name):
    (tmp_path / "main.py").write_text(SCRIPT)
    alone = read_script(tmp_path)
    packages = tmp_path / name / "lib"
    packages.mkdir(parents=True)
    (tmp_path / name / "pyvenv.cfg").write_text("home = /usr/bin\n")
    for number in range(60):
        (packages / f"m{number:02}.py").write_text(
            "from torch import nn\nclass Foreign(nn.Module): ...\nprint(f'foreign {1}')\n"
        )
    assert read_script(tmp_path) == alone
    assert "Net" in alone.networks


def test_the_lock_of_an_editor_or_a_folder_called_like_a_script_is_none(tmp_path):
    """Emacs links `.#train.py` to nowhere while the script is edited."""
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / ".#train.py").symlink_to("me@host.4711:1796087467")
    (tmp_path / "._main.py").write_text("__main__")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    (tmp_path / "main.py").mkdir()
    assert read_script(tmp_path).boot_file == "train.py"


LOGGING = """
import argparse, logging
logger = logging.getLogger(__name__)
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--warmup-epochs", type=int, default=5)
parser.add_argument("--epochs", type=int, default=300)
parser.parse_args()
for epoch in range(300):
    logger.info("epoch %d: val_acc %.3f, %d%% done", epoch, 0.9, 50)
"""


def test_what_a_logger_is_left_to_fill_in_is_read_as_printed(tmp_path):
    (tmp_path / "train.py").write_text(LOGGING)
    assert [item.name for item in read_script(tmp_path).metrics] == ["val_acc"]


def test_a_function_of_ones_own_called_info_prints_what_it_is_given(tmp_path):
    """A text without a place to fill in is none of a logger's."""
    (tmp_path / "train.py").write_text(SCRIPT + '\nfrom mine import info\ninfo("dev_f1", f1)\n')
    assert "dev_f1" in [item.name for item in read_script(tmp_path).metrics]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("warmup-epochs", 300),
        ("lr-decay-epochs", 300),
        ("swa_start_epochs", 300),
        ("max-epochs", 5),
    ],
)
def test_the_epochs_of_a_training_are_not_those_of_its_warm_up(tmp_path, name, epochs):
    text = LOGGING.replace("warmup-epochs", name)
    (tmp_path / "train.py").write_text(text)
    assert read_script(tmp_path).epochs == epochs
    # nothing says how long a training is
    (tmp_path / "train.py").write_text(text.replace("--epochs", "--steps"))
    assert read_script(tmp_path).epochs == (None if epochs == 300 else epochs)


def test_a_default_without_a_point_is_a_real_number_where_its_option_takes_one(tmp_path):
    (tmp_path / "train.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\n"
        'parser.add_argument("--lr", type=float, default=1)\n'
        'parser.add_argument("--hidden", type=int, default=8)\nparser.parse_args()\n'
    )
    job = tmp_path / "job.yaml"
    job.write_text(proposal(read_script(tmp_path)))
    space = build_plan([job]).steps[0].space
    assert (space["lr"].low, space["lr"].high, space["lr"].integer, space["lr"].log) == (
        0.1, 10.0, False, True,
    )  # fmt: skip
    assert (space["hidden"].low, space["hidden"].high, space["hidden"].integer) == (4, 16, True)
