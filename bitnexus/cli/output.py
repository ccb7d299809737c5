"""What a command tells: a table for people, or with --json one document for programs, on standard output.

Everything else (what a start waits for, progress, errors) goes to standard error; progress bars only if that is a terminal.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

WIDTH_UNKNOWN = 120
"""Columns of a table that goes into a file or a pipe."""


class Output:
    """One per run of the command line."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def result(self, document: Any, *shown: RenderableType) -> None:
        """The command's result, once. `document` is what --json prints, `shown` what a person sees."""
        if self.json:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
            sys.stdout.flush()
            return
        for renderable in shown:
            self.out.print(renderable)

    def say(self, text: str) -> None:
        """Something that a person may want to know meanwhile."""
        self.err.print(text, style="dim", soft_wrap=True)

    def error(self, text: str) -> None:
        """Why the command failed: what happened, the value, what to do."""
        if self.json:
            self.result({"error": text})
        self.err.print("error:", style="bold red", end=" ")
        self.err.print(text, soft_wrap=True)

    @contextmanager
    def progress(self, *, rates: bool = False) -> Iterator["Bars"]:
        """Bars while it lasts, on a terminal; with what is done in a second, and the time that is left."""
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        ]
        if rates:
            columns += [_Rate(), TimeRemainingColumn()]
        with Progress(*columns, console=self.err, disable=not self.err.is_terminal) as bars:
            yield Bars(bars)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", justify="right")


class Bars:
    """Progress bars by name; each appears when it is first moved."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def move(self, name: str, done: int, total: int | None) -> None:
        if self._bars.disable:
            return
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(task, completed=done, total=total)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; the columns of `right` hold numbers."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)  # what is shown may be anybody's text
    if not console.is_terminal:
        console.width = WIDTH_UNKNOWN
    return console
