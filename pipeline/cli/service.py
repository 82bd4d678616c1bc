"""The service: run it, ask it, look for what would keep it from running."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.bundle import BundleError
from pipeline.cli.asking import DEFAULT_URL, Url, ask
from pipeline.cli.words import Config, settings_of
from pipeline.console import FAILED, out, sentences
from pipeline.fast import KernelError


def run(config: Config = None) -> None:
    """The long-running service: readings from Kafka in, alerts to Kafka out."""
    from pipeline.adapters.columns import DataError
    from pipeline.adapters.kafka_connection import KafkaSetupError
    from pipeline.app import build
    from pipeline.ports import PartitionsChangedError
    from pipeline.web import WebError

    with sentences(BundleError, DataError, KafkaSetupError, KernelError, PartitionsChangedError, WebError):
        build(settings_of(config)).run()


def alerts(
    url: Url = DEFAULT_URL,
    is_open: Annotated[bool, typer.Option("--open", help="Those that are open, as without it.")] = True,  # noqa: ARG001 - a service knows no others
) -> None:
    """What is wrong now: the open alerts of a running service. Those that are over are in the topic of the alerts."""
    table = Table("since", "sensor", "channel", "kind", "severity", "score or measure", "threshold or limit", box=None)
    for a in ask(url, "/alerts"):
        measured = a["score"] if a["score"] is not None else a["measure"]
        limit = a["threshold"] if a["threshold"] is not None else a["limit"]
        figures = (f"{x:.4g}" if x is not None else "" for x in (measured, limit))
        table.add_row(_when(a["start"]), a["sensor"], a["channel"], a["kind"], a["severity"], *figures)
    out.print(table if table.row_count else "no alert is open")


def doctor(
    config: Config = None,
    create_topics: Annotated[bool, typer.Option(help="First create missing topics, unreplicated.")] = False,
    sensors: Annotated[int | None, typer.Option(min=1, help="Would so many fit this machine?")] = None,
) -> None:
    """Look for what would keep the service from running: broker, topics, model, clock, permissions."""
    from pipeline.adapters.kafka_connection import KafkaAwayError
    from pipeline.adapters.kafka_topics import ensure_topics
    from pipeline.doctor import READINGS_PARTITIONS, checks

    settings = settings_of(config)
    topics = settings.kafka.topics
    if create_topics:
        with sentences(KafkaAwayError):
            others = filter(None, (topics.alerts, topics.dead_letter, topics.scores))
            wide = {topics.readings, *([topics.checkpoints] if settings.checkpoints.store == "topic" else [])}
            wanted = dict.fromkeys(others, 1) | dict.fromkeys(wide, READINGS_PARTITIONS)
            ensure_topics(settings.kafka, wanted, {topics.checkpoints})
    found = checks(settings, sensors=sensors)
    table = Table("", "check", "found", "what to do", box=None)
    for check in found:
        table.add_row(
            "ok" if check.ok else "[red]FAILED[/red]",
            check.name,
            escape(check.detail),
            "" if check.ok else escape(check.remedy),
        )
    out.print(table)
    if not all(check.ok for check in found):
        raise typer.Exit(FAILED)


def _when(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
