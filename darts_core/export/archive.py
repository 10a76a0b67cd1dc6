"""Reading a `.pt2` file without running anything that stands in it.

`torch.export.load` unpickles members when the archive asks for it, evaluates symbolic expressions
as Python and resolves operator names by attribute look-up, so a doctored file can run code. Our
own files need none of that: tensors are raw bytes, operators are plain aten ones. Whatever goes
beyond is refused before torch sees the file. Native code (AOTInductor) is loaded elsewhere, and
only on request.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from darts_core.errors import ExportError
from darts_core.reading import DAMAGE, check_stored, parse_json, regular_file

__all__ = ["load_program", "save_program"]

_MEMBERS = re.compile(
    r"(archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json))"
)
_EXPRESSION = re.compile(r"[A-Za-z0-9_+\-*/()<>=!,. ]*")
_WORDS = re.compile(r"[A-Za-z_]\w*")
_SYMPY = {"Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilToInt", "TruncToInt", "Eq", "Ne"}
_SYMPY |= {"ModularIndexing", "And", "Or", "Not", "Integer", "True", "False", "oo", "int_oo"}
_SYMPY |= {"Add", "Mul", "Pow"}
_SYMBOL = re.compile(r"[su]\d+")
# how torch spells a free size: Symbol('s77', positive=True, integer=True)
_FREE_SIZE = re.compile(r"Symbol\('([su]\d+)'(, (positive|integer|nonnegative)=True)*\)")
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_\w+|_operator\.(add|sub|mul|floordiv|"
                     r"mod|getitem|eq|ne|lt|le|gt|ge|neg)")  # fmt: skip


def save_program(program: ExportedProgram, path: str | Path) -> None:
    """Write `program`, as one of the CPU, without example inputs and the source paths of this machine.

    Weights, sizes made in forward() and checks of a cast all name a device; torch opens none that is absent.
    """
    program._example_inputs = None  # pickled if present
    program = _moved(program, "cpu")
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack"):
            node.meta.pop(key, None)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns about strided (channels-last) weights, which it stores correctly
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    Path(path).write_bytes(buffer.getvalue())


def load_program(path: str | Path, device: torch.device | None = None) -> ExportedProgram:
    """The program in a `.pt2` file, after every member has been looked at.

    Args:
        path: of the file.
        device: where all of it runs; None: where it was written for.

    Raises:
        ExportError: the file is missing, damaged, holds pickled objects, native code, operators
            outside aten or expressions that are no arithmetic.
    """
    path = Path(path)
    regular_file(path, ExportError)
    content = path.read_bytes()  # checked and loaded from the same bytes
    try:
        check_stored(io.BytesIO(content))
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        names = list(reader.get_all_records())
        _check_members(path, reader, names)
    except DAMAGE as error:
        raise ExportError(f"{path} is no readable .pt2 archive; export the model again.") from error
    try:
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # torch raises many kinds for a file of another version
        raise ExportError(
            f"{path} cannot be loaded by torch {torch.__version__} ({type(error).__name__}: "
            f"{str(error)[:200]}); export the model again with this version."
        ) from error
    if device is None:
        return program
    # with the card's number: to the check of a cast, cuda is not cuda:0
    return _moved(program, torch.empty(0, device=device).device)


def _moved(program: ExportedProgram, device: torch.device | str) -> ExportedProgram:
    """`program` on another device; torch moves each weight by itself, so that tied ones would become two."""
    seen: dict[tuple[Any, ...], str] = {}
    first = {
        # what holds no values lies nowhere
        name: seen.setdefault((v.data_ptr() or id(v), type(v), v.dtype, v.shape, v.stride()), name)
        for name, v in program.state_dict.items()
    }
    program = move_to_device_pass(program, device)
    for name, own in first.items():
        program.state_dict[name] = program.state_dict[own]
    return program


def _check_members(path: Path, reader: Any, names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise _doctored(path, "two members share a name")
    for name in names:
        if not _MEMBERS.fullmatch(name):
            raise _doctored(path, f"member {name!r} has no place in a plain aten program")
    for needed in ("models/model.json", "archive_version"):
        if needed not in names:
            raise _doctored(path, f"member {needed!r} is missing")
    if "data/sample_inputs/model.pt" in names and reader.get_record("data/sample_inputs/model.pt"):
        raise _doctored(path, "it carries pickled example inputs")
    for kind in ("weights", "constants"):
        member = f"data/{kind}/model_{kind}_config.json"
        config = _json(path, reader, member)
        entries = config.get("config") if isinstance(config, dict) else None
        if not isinstance(entries, dict):
            raise _doctored(path, f"{member} is malformed")
        for key, entry in entries.items():
            if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
                raise _doctored(path, f"tensor {key!r} asks to be unpickled")
            if not re.fullmatch(r"(weight|tensor)_\d+", str(entry.get("path_name"))):
                raise _doctored(path, f"tensor {key!r} is read from {entry.get('path_name')!r}")
    _check_program(path, _json(path, reader, "models/model.json"))


def _json(path: Path, reader: Any, member: str) -> Any:
    try:
        content = reader.get_record(member)
    except RuntimeError as error:
        raise _doctored(path, f"member {member!r} is missing") from error
    return parse_json(content, f"{path}, member {member!r}", ExportError)


def _check_program(path: Path, program: Any) -> None:
    if not isinstance(program, dict):
        raise _doctored(path, "models/model.json is malformed")
    if program.get("guards_code"):
        raise _doctored(path, "it carries Python guards")
    for symbol in program.get("range_constraints", {}):
        if not _SYMBOL.fullmatch(symbol):
            raise _doctored(path, f"symbol {symbol!r} is no plain name")
    _walk(path, program.get("graph_module"))


def _walk(path: Path, value: Any) -> None:
    """Every operator name and symbolic expression below `value` is one that runs no code."""
    if isinstance(value, list):
        for item in value:
            _walk(path, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "target" and isinstance(item, str) and not _TARGET.fullmatch(item):
                raise _doctored(path, f"operator {item!r} is not a plain aten one")
            if key == "expr_str":
                _check_expression(path, item)
            _walk(path, item)


def _check_expression(path: Path, text: Any) -> None:
    rest = _FREE_SIZE.sub(r"\1", text) if isinstance(text, str) else "'"
    plain = _EXPRESSION.fullmatch(rest) and "__" not in rest
    words = _WORDS.findall(rest) if plain else []
    if not plain or any(w not in _SYMPY and not _SYMBOL.fullmatch(w) for w in words):
        raise _doctored(path, f"expression {str(text)[:80]!r} is no arithmetic")


def _doctored(path: Path, reason: str) -> ExportError:
    return ExportError(
        f"{path} is refused because {reason}; loading it could run foreign code. Export the model "
        "again with darts-core, or load it with torch.export.load if you trust its maker."
    )
