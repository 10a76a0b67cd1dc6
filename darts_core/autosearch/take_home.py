"""What a user takes home from a job: settings, gain, weights, the network's description, files that run."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.autosearch.loading import load
from darts_core.autosearch.networks import NETWORK, WEIGHTS
from darts_core.errors import ConfigError, DartsError, ResumeError
from darts_core.reading import read_text
from darts_core.runlog import read_json, read_mapping, write_json
from darts_core.store.code import copy_model, model_file

__all__ = ["take_home"]

EXPORTED = "exported"
_ALWAYS = ("best.json", "config.json", "README.md")
_OF_A_NETWORK = (
    NETWORK, WEIGHTS, f"{EXPORTED}/model.pt2", f"{EXPORTED}/model.onnx", f"{EXPORTED}/manifest.json",
)  # fmt: skip


def take_home(version: Path, result: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the winner of a version into a folder; the names of what was written.

    The network is built once with the version's own copy of the code, to write and verify `.pt2` and
    ONNX files where it can be exported; where not, the README says why.

    Raises:
        ConfigError: a file there that is not ours has the name of one to be written.
    """
    best = result["best"]
    trial = Path(best["folder"])
    model = model_file(trial, best.get("model_path"))
    kept = all((trial / name).is_file() for name in (NETWORK, WEIGHTS))
    folder.mkdir(parents=True, exist_ok=True)
    if not _clear(folder):
        own = [model.name] if model is not None else []
        _spare(folder, [*_ALWAYS, *own, *((NETWORK, WEIGHTS, EXPORTED) if kept else ())])
    write_json(folder / "best.json", {"schema_version": 1, **result})
    write_json(folder / "config.json", best["config"])
    if model is not None:
        copy_model(model, folder)
    note = "the trial kept no network (mark the function that builds it with @autosearch.network)"
    left: dict[str, str] = {}
    if kept:
        for name in (NETWORK, WEIGHTS):
            shutil.copyfile(trial / name, folder / name)
        note, left = _export(folder, version / "code")
    text = _readme(version, best, result["verdict"], model, note, left, kept=kept)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def _spare(folder: Path, names: Sequence[str]) -> None:
    """Raise where a file that no call of ours wrote would be written over, such as a project's README."""
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} holds {', '.join(there)} already, and no export wrote that; name another folder "
            "with --export."
        )


def _clear(folder: Path) -> bool:
    """Remove the network that an earlier call wrote here: it is another winner's, or will be written anew.

    What stands in a folder without our `best.json` is not ours: then False.
    """
    try:
        known = read_mapping(folder / "best.json")
    except ResumeError:
        return False
    if "verdict" not in known:
        return False
    model = _copied_model(folder, known.get("best"))
    for path in (*(folder / name for name in _OF_A_NETWORK), *([model] if model else [])):
        if path.is_file():
            path.unlink()
    if model is not None and model.is_dir() and not model.is_symlink():
        shutil.rmtree(model)
    return True


def _copied_model(folder: Path, best: object) -> Path | None:
    """The model that an earlier call copied here; its README names it, so a file of the user's own stays."""
    reported = best.get("model_path") if isinstance(best, dict) else None
    name = Path(reported).name if isinstance(reported, str) else ""
    if name in ("", ".."):
        return None
    try:
        readme = read_text(folder / "README.md", ResumeError)
    except ResumeError:
        return None
    return folder / name if _of_training(name) in readme else None


def _of_training(name: str) -> str:
    return f"`{name}` is the model that the training reported. "


def _export(folder: Path, code: Path) -> tuple[str, dict[str, str]]:
    """Export and verify the network.

    Returns:
        "" or why nothing was written; of what was, the formats that are left out, and why.
    """
    import torch

    from darts_core.export.export import export_model
    from darts_core.models.by_name import Rows

    shape = read_json(folder / NETWORK).get("input_shape")
    if not isinstance(shape, list):
        why = "write @autosearch.network(input_shape=SHAPE), such as (C, H, W)"
        return f"its input shape is not known: {why}", {}
    if len(shape) not in (1, 2, 3):
        return (
            "only networks for images (C, H, W), series (C, T) and values (F,) are exported, and its input "
            f"is {tuple(shape)}"
        ), {}
    try:
        model = load(folder, code=code)
        if len(shape) == 1:  # the files take [B, 1, F]
            model, shape = Rows(model), [1, *shape]
        with torch.no_grad():
            output = model(torch.zeros(1, *shape))
        if not isinstance(output, torch.Tensor) or output.dim() != 2:
            return "only networks that give one row of numbers a sample are exported", {}
        classes = [str(i) for i in range(output.shape[1])]
        # numbers as they are: how bytes become what the network takes stands in the user's code alone
        meta = {"classes": classes, "input_shape": shape, "mean": [0.0] * shape[0],
                "std": [1.0] * shape[0], "unit": 1, "name": "autosearch"}  # fmt: skip
        written = export_model(model, folder / EXPORTED, meta, time_artifacts=False, leave_out=True)
    except DartsError as error:
        return str(error), {}
    except (
        Exception
    ) as error:  # the user's code may raise anything; her winner is written all the same
        return f"{type(error).__name__}: {error}", {}
    return "", dict(written.get("left_out", {}))


def _readme(
    version: Path,
    best: Mapping[str, Any],
    verdict: str,
    model: Path | None,
    note: str,
    left: Mapping[str, str],
    *,
    kept: bool,
) -> str:
    own = _of_training(model.name) if model is not None else ""
    if kept:
        use = "`autosearch.load('.', code='FOLDER OF YOUR CODE')` (`from darts_core import autosearch`)."
    else:
        command = _command(Path(best["folder"]))
        use = (
            f"train once more: `{command}`"
            if command
            else ("train once more with the settings of `config.json`.")
        )
    done = (
        f"`{EXPORTED}/` holds the verified `.pt2` and ONNX files; inputs as your code normalises them, rows "
        "[B, F] as [B, 1, F]."
    )
    done += "".join(f" Left out is `{name}`: {why}" for name, why in left.items())
    return "\n".join(
        [
            f"# The winner of {version.parent.name}/{version.name}",
            "",
            f"Trial {best['trial_id']}, settings in `config.json`; all figures in `best.json`.",
            verdict,
            "",
            f"Build it again with its weights: {use}",
            f"{own}`{NETWORK}` describes the network, `{WEIGHTS}` holds its weights."
            if kept
            else own or "The trial reported no model file.",
            done if not note else f"No `.pt2` or ONNX file was written: {note}.".replace("..", "."),
            f"Made by darts-core from the code in `{version / 'code'}`.",
            "",
        ]
    )


def _command(trial: Path) -> str:
    """The command line of a script's trial, as one types it in the code's folder; "" for a `train()`."""
    record = read_json(trial / "trial.json") if (trial / "trial.json").is_file() else {}
    if not record.get("metrics"):
        return ""
    boot = Path(record["boot_file"])
    where = (
        boot.relative_to(record["code_dir"]) if boot.is_relative_to(record["code_dir"]) else boot
    )
    script = ["-m", record["module"]] if record.get("module") else [where.as_posix()]
    ours = ("--trial_id=", "--nas_code=", "--train_url=")
    words = [word for word in record["arguments"] if not word.startswith(ours)]
    return shlex.join(["python", *script, *words])


def checked(version: Path, folder: Path) -> list[str]:
    """`take_home` of a version as it is now.

    Raises:
        ConfigError: no trial has given a usable result, or see `take_home`.
    """
    from darts_core.study.results import summary

    result = summary(version)
    if result["best"] is None:
        raise ConfigError(result["verdict"])
    return take_home(version, result, folder)
