"""What a person sees of a command: progress while it works, a sentence when it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import TaskID

OK, FAILED, WRONG_WORDS = 0, 1, 2  # exit codes

PIPE_WIDTH = 160  # a table that goes to a file or a pipe is not cut to a terminal nobody has


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


out, err = _console(stderr=False), _console(stderr=True)


@contextmanager
def sentences(*failures: type[BaseException], wrong: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """End the command with the sentence of a failure that says what, where and what to do; others keep their trace."""
    try:
        yield
    except wrong as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_WORDS) from error
    except failures as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """End the command with a sentence where what it imports is not installed."""
    try:
        yield
    except ModuleNotFoundError as missing:
        said = (
            f'{missing.name} is not installed; this needs the extra `{extra}`, from a clone: pip install ".[{extra}]"'
        )
        err.print(said, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from missing


class Stages:
    """A bar for each stage of a long job; a line for each where there is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:>6}/{task.total:<6} {task.fields[said]}"),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=err, disable=not err.is_terminal)
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def stage(self, group: str, what: str, steps: int) -> None:
        """A stage of so many steps begins."""
        if not err.is_terminal:
            err.print(f"{group}: {what}, {steps} steps", markup=False)
        self._task = self._bars.add_task(f"{group}: {what}", total=steps, said="")

    def advance(self, step: int, said: str = "") -> None:
        """It has come to this step."""
        if self._task is not None:
            self._bars.update(self._task, completed=step, said=said)

    def report(self, what: str, done: int, of: int) -> None:
        """So many of this many are done; the first call of a kind begins its stage."""
        if what != self._what:
            self._what = what
            self.stage("evaluate", what, of)
        self.advance(done)
