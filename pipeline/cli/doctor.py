"""Look for what would keep the service from running."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.words import Config, settings_of
from pipeline.console import FAILED, out, sentences


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
