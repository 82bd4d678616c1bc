"""`foreshock rekey`: a topic keyed otherwise becomes one keyed by sensor."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.words import Config, settings_of
from pipeline.console import WRONG_WORDS, err, out, sentences

if TYPE_CHECKING:
    from rich.status import Status

    from pipeline.adapters.kafka_rekey import Rekeyed

LINE_SECONDS = 30.0  # between two lines, where nobody watches


def rekey(
    origin: Annotated[str, typer.Argument(metavar="FROM", help="The topic as it is.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The topic that the service reads.")],
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End with what is there now; by default, go on for good.")
    ] = False,
    config: Config = None,
) -> None:
    """Write a topic of readings anew, keyed by sensor and hashed with murmur2, each message exactly once."""
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_rekey import Rekey
    from pipeline.core.tags import Tags
    from pipeline.telemetry import configure_logging

    if origin == target:
        err.print("FROM and TO are the same topic: what is written there would be read again")
        raise typer.Exit(WRONG_WORDS)
    settings = settings_of(config)
    configure_logging(settings.logging)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with sentences(KafkaAwayError, KafkaSetupError), err.status(f"{origin} to {target}") as status:
        tags = Tags(settings.model.tag) if settings.model.tag else None
        at_work = Rekey(settings.kafka, origin, target, lambda why: err.print(why, markup=False), tags)
        try:
            done = at_work.run(stopping.is_set, until_end=until_end, on_commit=_shown(status))
        finally:
            at_work.close()
    out.print(f"{done.messages} messages from {origin} to {target}, {done.refused} refused")


def _shown(status: Status) -> Callable[[Rekeyed], None]:
    """Shows how far it is: on a terminal all the time, elsewhere as a line now and then."""
    due = 0.0

    def show(done: Rekeyed) -> None:
        nonlocal due
        said = f"{done.messages} messages, {done.refused} refused, {done.left} to go"
        if err.is_terminal:
            status.update(said)
        elif time.monotonic() >= due:
            due = time.monotonic() + LINE_SECONDS
            err.print(said, markup=False)

    return show
