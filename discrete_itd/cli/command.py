"""The command line: ``discrete-itd fit | score | impute | sample | report | ...``.

Each command reads files and writes complete files or none. An error of the user's is one line on stderr, with exit code
2. The module of a command is imported when it is run: ``--help`` needs neither torch nor pandas.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TextIO

from discrete_itd.cli.options import COMMANDS, UserError, make_parser
from discrete_itd.progress import harmless, terminated_as_interrupted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with ``argv``, by default the arguments of the process, and return its exit code.

    It is 0; 1 if ``report --check`` finds a target that is not met, ``drift --check`` finds drift, or ``watch`` has
    raised an alarm; 2 after an error of the user's; 130 after an interruption (Ctrl-C, SIGTERM), also if ``fit`` has
    kept the best model so far; 141 if the reader of a pipe has gone. The last two follow the convention of shells.
    """
    shown, code = set(), None

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:  # a second pass over the rows repeats its warnings
            note(str(message))
        shown.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        try:
            args = make_parser().parse_args(argv)
        except UserError as error:
            put(f"discrete-itd: error: {one_line(error)}", sys.stderr)
            return 2
        try:
            code = _run(args, is_process=argv is None)
            if sys.stdout is not None:  # it is closed
                sys.stdout.flush()
        except BrokenPipeError:  # the reader, like head, has closed the pipe
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1
            )
            return 141
        except KeyboardInterrupt:
            print("discrete-itd: interrupted", file=sys.stderr)
            return 130
        except (ValueError, TypeError, OSError, ImportError) as error:
            put(f"discrete-itd: error: {one_line(error)}", sys.stderr)
            return 2
    return code or 0


def _run(args: Namespace, *, is_process: bool) -> int | None:
    """Run one command; its exit code."""
    from discrete_itd.validation import from_shell

    module = COMMANDS[args.command].module
    with terminated_as_interrupted(), from_shell():
        return getattr(_imported(module, stays=is_process), args.command)(args)


def _imported(module: str, *, stays: bool) -> ModuleType:
    """A module of the command, with all that it imports.

    These objects are searched for garbage neither meanwhile nor, if they ``stay``, ever: at the end of a process alone
    that takes as long as the import of pandas.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(f"discrete_itd.cli.{module}")
    finally:
        if stays:
            gc.freeze()
        if is_enabled:
            gc.enable()


def note(text: str) -> None:
    """Print a remark on stderr, on one line."""
    put(f"discrete-itd: note: {' '.join(text.split())}", sys.stderr)


def put(text: str, file: TextIO | None = None) -> None:
    """Print a text, by default on the standard output.

    Names and values in it may be anybody's: see :func:`~discrete_itd.progress.harmless`.
    """
    file = sys.stdout if file is None else file
    if file is not None:  # it is not closed
        print(harmless(text, file), file=file)


def one_line(error: Exception) -> str:
    """The text of an error on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
