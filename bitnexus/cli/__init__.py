"""The command `bitnexus`. Exit 0: good; 1: a finding, such as a broken chain; 2: wrong use or bad input; 130: interrupted."""

import importlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from bitnexus import settings
from bitnexus.cli import parser
from bitnexus.cli.output import Output

GOOD, FINDING, WRONG, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[Namespace, settings.Settings, Output], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(json="--json" in words)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return _run(words, output)
    except KeyboardInterrupt:
        output.error("Interrupted. What was recorded stays; run the command again to go on.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has read enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except Exception as error:
        from bitnexus.cli import failures  # knows every layer's exceptions, which `--help` has no need of

        if not failures.is_expected(error):
            raise
        output.error(failures.described(error))
        return WRONG


def interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does: what is open is closed."""
    raise KeyboardInterrupt


def _run(words: list[str], output: Output) -> int:
    found = parser.parser().parse_args(words)
    module, function = found.command.split(".")
    # Imported only now, each command what it needs: serving alone takes half a second.
    command: Command = getattr(importlib.import_module(f"bitnexus.cli.{module}"), function)
    return command(found, settings.read(data_dir=found.data_dir), output)
