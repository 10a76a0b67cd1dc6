"""The wheel, installed into a bare environment in another folder, lists and searches."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: str | Path, cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        ROOT,
        cwd=ROOT,
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a bare environment with the wheel; its dependencies are those of this one."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--quiet", wheel, cwd=home)  # fmt: skip
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    # a line of a .pth file adds a folder without reading the .pth files in it, so that this
    # checkout, installed there in editable form, stays out of sight
    (Path(packages.strip()) / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_packages_kernels_plugin_and_configs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "darts_core/cli.py",
        "darts_core/py.typed",
        "darts_core/conf/search.yaml",
        "darts_core/conf/data/digits.yaml",
        "darts_core/conf/experiment/demo.yaml",
        "darts_kernels/__init__.py",
        "hydra_plugins/darts_sweeper/__init__.py",
    ):
        assert wanted in names
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"darts_core", "darts_kernels", "hydra_plugins"}
    assert "hydra_plugins/__init__.py" not in names


def test_the_installed_command_lists_and_searches(installed: Path, tmp_path: Path) -> None:
    where = run(
        installed / "python", "-c", "import darts_core; print(darts_core.__file__)", cwd=tmp_path
    )
    assert str(installed.parent) in where
    assert str(ROOT) not in where
    text = run(installed / "darts-core", "list", cwd=tmp_path)
    for name in ("sep_conv_3x3", "nasbench201", "digits", "first_order", "demo"):
        assert name in text
    run(installed / "darts-core", "search", "data=digits", "space=nasbench201", "search.epochs=1",
    "search.finalists=1",
        "search.channels=2", "search.layers=1", "search.batch_size=128", cwd=tmp_path)  # fmt: skip
    version = tmp_path / "runs" / "digits-nasbench201" / "V001" / "search"
    assert (version / "architecture.yaml").is_file()
    assert (version / "result.json").is_file()
