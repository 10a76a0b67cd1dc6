"""The console command `darts-core`: picks the command, turns expected failures into one sentence.

Exit status: 0 done; 2 a mistake in settings, data, files or code of the user's, or a package that is not
installed, told in one sentence on stderr; 130 stopped by Ctrl-C or SIGTERM with a checkpoint kept; 141 who
read its output has gone; 1 a defect of ours. `DARTS_DEBUG=1` shows tracebacks.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import select
import sys
from collections.abc import Sequence

from darts_core import __version__
from darts_core.commands.arguments import Parser
from darts_core.commands.help import ARGPARSE, command_help, main_help
from darts_core.commands.ranks import current_ranks, end_at_once, in_process_group
from darts_core.errors import ConfigError, sentence_of, unknown_name
from darts_core.processors import keep_threads_within_quota
from darts_core.report.escape import plain_text
from darts_core.runlog import utf8_streams
from darts_core.stages.schema import COMMANDS

__all__ = ["main"]

USAGE, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
# characters of a message: a list of every known name fits
_LONGEST = 8000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `argv` is without the program's name.

    A process of torchrun ends here and does not return.
    """
    utf8_streams()
    status = _run(list(sys.argv[1:] if argv is None else argv))
    if status:
        _let_go_of_output()
    if in_process_group():
        end_at_once(status)
    return status


def _run(argv: list[str]) -> int:
    """One command with its expected failures turned into a sentence and a status."""
    try:
        status = _dispatch(argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        return _interrupted(stop)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            return PIPE_CLOSED  # `| head`: nobody is left to tell
        if os.environ.get("DARTS_DEBUG") == "1":
            raise
        sentence = sentence_of(error) or _of_packages(error) or _of_users_code(error)
        if sentence is None:
            _tell_defect(error, argv)
            return 1
        if not (isinstance(error, ConfigError) and _follows()):
            _tell(sentence)
        return USAGE


def _reader_gone() -> bool:
    """Whether who reads our output has ended; a pipe to a program that a plugin started breaks as well."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream without a number
            poll = select.poll()
            # asked for nothing, macOS would not tell of an end either
            poll.register(stream.fileno(), select.POLLOUT)
            if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                return True
    return False


def _let_go_of_output() -> None:
    """Drop what cannot be written: Python's own flush at exit would complain, and end with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _follows() -> bool:
    """Whether another process of torchrun has the same settings and tells what is wrong with them."""
    try:
        ranks = current_ranks()
    except ConfigError:  # what torchrun set is what is wrong
        return False
    return ranks is not None and not ranks.first


def _of_packages(error: Exception) -> str | None:
    from darts_core.commands.doctor import lacking_sentence

    return lacking_sentence(error)


def _of_users_code(error: Exception) -> str | None:
    from darts_core.crash import users_sentence

    return users_sentence(error)


def _tell_defect(error: Exception, argv: list[str]) -> None:
    """Say that this is our mistake, and which file describes it."""
    from darts_core.crash import write_crash_report
    from darts_core.credentials import masked

    path = write_crash_report(error, argv)
    told = (
        f"please report it and attach {path}, which holds the traceback, versions and this command line"
        if path is not None
        else "run again with DARTS_DEBUG=1 for the traceback and report it"
    )
    _tell(f"unexpected {type(error).__name__}: {masked(str(error))} (this is a defect; {told})")


def _tell(sentence: str) -> None:
    """Print `sentence` on stderr: what it quotes of files and names prints only, and steers nothing."""
    _print_error(f"darts-core: {plain_text(sentence, limit=_LONGEST)}")


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError):  # of `2>&1 | tee` the reader may have gone: the status tells
        print(text, file=sys.stderr)


def _dispatch(argv: list[str]) -> int:
    """Call the command that `argv` names."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        named = [a for a in argv[1:] if not a.startswith("-")]
        if argv and argv[0] == "help" and named:
            return _dispatch([named[0], "--help"])
        print(main_help())
        return 0
    if argv[0] == "--version":
        print(f"darts-core {__version__}")
        return 0
    if sys.platform == "win32":
        raise ConfigError(
            "darts-core runs on Linux and macOS: what it reads, locks and starts asks for calls that Windows "
            "lacks; run it in WSL (wsl --install)."
        )
    _check_folder()
    keep_threads_within_quota()
    command, rest = argv[0], argv[1:]
    if command in COMMANDS:
        if any(a in ("-h", "--help") for a in rest):
            print(command_help(command))
            return 0
        from darts_core.commands.hydra_app import main as hydra_main

        return hydra_main(command, rest)
    if command in ARGPARSE:
        return _run_argparse(command, rest)
    raise ConfigError(unknown_name("command", command, [*COMMANDS, *ARGPARSE]))


def _check_folder() -> None:
    """Refuse a current folder that is gone: torch's libraries end the process there without a word of it.

    Raises:
        ConfigError: it is.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError(
            "The current folder has been deleted (or made anew); go to one that is there: cd FOLDER."
        ) from None


def _run_argparse(command: str, rest: list[str]) -> int:
    """Import the module of an argparse command only now, and run it."""
    about = ARGPARSE[command]
    module = importlib.import_module(about.module)
    parser = Parser(
        prog=f"darts-core {command}",
        description=about.summary,
        epilog=about.examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return int(module.run(parser.parse(rest)))


def _interrupted(stop: KeyboardInterrupt) -> int:
    """Say how to go on after Ctrl-C or SIGTERM; of several processes the first one does."""
    if _follows():
        return INTERRUPTED
    again = os.environ.get("DARTS_RESUME_COMMAND")
    detail = f" {stop}" if str(stop) else ""
    _print_error(f"\ndarts-core: stopped.{plain_text(detail, limit=_LONGEST)}")
    if again:
        _print_error(f"Go on with:  {plain_text(again, limit=_LONGEST)}")
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
