"""Every page tells the truth as far as reading can tell: links, commands, settings, options, calls."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from darts_core.commands.arguments import Parser, parse_arguments
from darts_core.commands.help import ARGPARSE, HYDRA
from darts_core.commands.mistakes import field_type
from darts_core.commands.overrides import key_of, parse
from darts_core.commands.user_tree import GROUPS, takes_group
from darts_core.errors import ConfigError
from darts_core.runlog import read_yaml
from darts_core.settings import from_plain
from darts_core.stages.schema import STAGES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    page
    for folder in ("", "docs", "docs/extending", "examples", "benchmarks", "kernels")
    for page in sorted(Path(ROOT, folder).glob("*.md" if folder != "examples" else "*/*.md"))
    if page.name not in ("CHANGELOG.md", "NOTES.md")
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
# ours, and those of the examples for extension authors
CHOICES = (ROOT / "conf", ROOT / "examples/outside_package/my_conf")
# a value that stands for one of the reader's own
BLANK = re.compile(r"=(\.\.\.|[A-Z]+|)$")
OPEN = ("data", "task", "strategy", "relax", "penalty", "augment", "callbacks", "logger")
ELSEWHERE = ("hydra", "space.", "model_args.", "tune.space.", "search.guards.")
# what is behind them is the shell's
SHELL = ("|", ">", ">>", "2>", "&", "&&", "||", ";")
OWN_DATA = ("cifar10", "cifar100", "mnist", "npz", "npy", "parquet", "image_folder", "text")


@cache
def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As the pages are shown: a heading in small letters, without signs, with dashes for blanks."""
    plain = (
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h)
        for h in re.findall(r"^#+ (.+)$", prose(page), re.M)
    )
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in plain}


def test_links_lead_to_a_file_and_to_a_heading_in_it() -> None:
    lost, count = [], 0
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            count += 1
            if "://" not in link and (
                not target.exists() or (anchor and anchor not in anchors(target))
            ):
                lost.append((page.name, link))
    assert count > 100
    assert lost == []


def lines(text: str) -> Iterator[str]:
    """The lines of blocks, indented ones too, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", " ", text)
    for _, block in BLOCK.findall(text):
        yield from map(str.strip, block.splitlines())
    plain = BLOCK.sub("", text)
    yield from re.findall(r"^    (\S.*)$", plain, re.M)
    yield from re.findall(r"`([^`]+)`", plain.replace("\n", " "))


@cache
def commands() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(where it stands, its words) of each `darts-core COMMAND ...` with a word behind it."""
    texts = [
        (page.name, line) for page in PAGES for line in lines(page.read_text(encoding="utf-8"))
    ]
    for name, about in {**HYDRA, **ARGPARSE}.items():
        shown = about.examples.replace("\\\n", " ").splitlines()
        texts += [(f"{name} --help", re.split(r"\s{3,}\(", line.strip())[0]) for line in shown]
    found = {}
    for place, line in texts:
        line = re.sub(r"^torchrun .*?-m darts_core\.cli", "darts-core", line)
        if line.startswith("darts-core "):
            typed = takewhile(lambda word: word not in SHELL, shlex.split(line, comments=True)[1:])
            found[tuple(word for word in typed if word != "...")] = place
    return tuple((place, words) for words, place in found.items() if len(words) > 1)


def mistake(command: str, word: str) -> str | None:
    """What is wrong with an override, as far as its own declaration tells."""
    key = key_of(word)
    top = key.partition(".")[0]
    if key in GROUPS:
        if not takes_group(key, STAGES[command].__dataclass_fields__):
            return f"{command} takes no {key}="
        chosen = set() if BLANK.search(word) else set(re.findall(r"\w+", word.partition("=")[2]))
        found = {path.stem for folder in CHOICES for path in folder.glob(f"{key}/*.yaml")}
        return f"{word} chooses no file" if chosen - found - {"mine"} else None
    if top in OPEN or key.startswith(ELSEWHERE):
        return None
    if field_type(STAGES[command], key) is None:
        return f"{command} has no setting {key}"
    override = parse(word)
    if BLANK.search(word) or override.is_sweep_override():
        return None
    plain = override.value()
    for part in reversed(key.split(".")):
        plain = {part: plain}
    try:
        from_plain(STAGES[command], plain)
    except ConfigError as error:
        # one of two settings that go together is refused alone
        return None if "cost=" in f"{error}" else str(error)
    return None


def test_commands_of_the_pipeline_name_settings_that_there_are() -> None:
    wrong, count = [], 0
    for place, (command, *words) in commands():
        if command in STAGES and "--help" not in words:
            count += 1
            try:
                given = parse_arguments(command, words).overrides
            except ConfigError as error:
                wrong.append((place, str(error)))
                continue
            found = [said for word in given if "=" in word and (said := mistake(command, word))]
            wrong += [(place, said) for said in found]
    assert count > 50
    assert wrong == []


def test_other_commands_name_options_that_there_are() -> None:
    wrong, count = [], 0
    parsers = {}
    for name in ARGPARSE:
        parsers[name] = Parser(prog=name)
        importlib.import_module(ARGPARSE[name].module).configure(parsers[name])
    for place, (command, *words) in commands():
        if command not in (*STAGES, *ARGPARSE, "COMMAND"):
            wrong.append((place, f"there is no command {command}"))
        if command not in ARGPARSE or "--help" in words:
            continue
        count += 1
        try:
            parsers[command].parse_args(words)
        except ConfigError as error:
            # in a sentence a command stands with the words that it is about
            if "required" not in f"{error}" and "expected one argument" not in f"{error}":
                wrong.append((place, str(error)))
    assert count > 50
    assert wrong == []


def test_a_command_names_the_data_and_the_weights_that_it_needs() -> None:
    """`data=cifar10` alone is refused, and a network by name without weights is shrunk untrained."""
    without = []
    for place, (command, *words) in commands():
        given = {key_of(word): word.partition("=")[2] for word in words if "=" in word}
        if given.get("data") in OWN_DATA and "data.path" not in given:
            without.append((place, command, "data.path"))
        named = ":" in given.get("model", "") and not given["model"].startswith("timm:")
        takes = command in ("prune", "shrink", "export", "predict")
        if named and takes and "weights" not in given:
            without.append((place, command, "weights"))
    assert without == []


def test_settings_named_in_sentences_exist() -> None:
    nodes = {name for stage in STAGES.values() for name in stage.__dataclass_fields__}
    files = {
        group: [read_yaml(path) or {} for path in ROOT.glob(f"conf/{group}/*.yaml")]
        for group in GROUPS
    }
    ours = rf"(?<![\w./:'-])((?:{'|'.join(sorted(nodes))})(?:\.[a-z_0-9]+)+)(?=[=`,\] ]|$)"
    ends = re.compile(r"(_target_|\.(html|yaml|json|npz|parquet|log|onnx|pt2?|py|path))$")

    def known(key: str) -> bool:
        if any(field_type(stage, key) is not None for stage in STAGES.values()):
            return True
        group, *rest = key.split(".")
        for node in files.get(group, []):
            for part in rest:
                node = node.get(part, known) if isinstance(node, dict) else known
            if node is not known:
                return True
        return key.startswith(("tune.space.", "search.guards.", "task.coverage"))

    keys = {
        key
        for page in PAGES
        for span in re.findall(r"`([^`\n]+)`", prose(page))
        for key in re.findall(ours, span)
        if not ends.search(key)
    }
    assert len(keys) > 50
    assert sorted(key for key in keys if not known(key)) == []


def test_benchmarks_are_named_with_options_that_they_have() -> None:
    wrong, count = [], 0
    called = re.compile(
        r"(?:-m benchmarks\.|python benchmarks/)(\w+)(?:\.py)?((?: [-\w./\[\]{}]+)*)"
    )
    for page in [*PAGES, ROOT / "Makefile", *sorted(ROOT.glob("benchmarks/*.py"))]:
        for name, words in called.findall(re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))):
            file = ROOT / f"benchmarks/{name}.py"
            if name == "NAME":
                continue
            count += 1
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            asked = re.findall(r"--[\w-]+", words)
            wrong += [(page.name, name, o) for o in asked if f'"{o}"' not in text]
            wrong += [] if text else [(page.name, name, "")]
    assert count > 50
    assert wrong == []


def imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """The names that a block imports from us, each with what it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("darts_"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                yield alias.asname or alias.name, getattr(module, alias.name)


def test_python_blocks_import_what_there_is_and_call_it_as_it_is_called() -> None:
    wrong, count = [], 0
    for page in PAGES:
        names: dict[str, Any] = {}  # a later block goes on from an earlier one
        for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            try:
                tree = ast.parse(block if language == "python" else "")
            except SyntaxError:  # lines of a file
                assert re.search(r"^ +\.\.\.$", block, re.M), f"{page.name}: {block}"
                continue
            names |= dict(imported(tree))
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call):
                    continue
                called, *attributes = ast.unparse(node.func).split(".")
                # how many stand behind a star, two stars or dots is not told
                untold = any(keyword.arg is None for keyword in node.keywords) or any(
                    isinstance(argument, ast.Starred)
                    or (isinstance(argument, ast.Constant) and argument.value is ...)
                    for argument in node.args
                )
                if untold or (target := names.get(called)) is None:
                    continue
                try:
                    for name in attributes:
                        target = getattr(target, name)
                    inspect.signature(target).bind(
                        *node.args, **{str(keyword.arg): keyword for keyword in node.keywords}
                    )
                except ValueError:  # an exception has no signature
                    continue
                except (AttributeError, TypeError) as error:
                    wrong.append((page.name, ast.unparse(node), str(error)))
                count += 1
    assert count > 40
    assert wrong == []


@pytest.mark.parametrize(
    "word", ["search.epoch=3", "train.epochs=0", "bench.rivals=3", "data=digit"]
)
def test_a_word_that_is_wrong_is_seen(word: str) -> None:
    assert mistake("run", word)
