"""`foreshock produce`: files to the topic of the readings."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.words import Config, Data, settings_of
from pipeline.console import Stages, out, sentences


def produce(
    data: Data,
    topic: Annotated[str | None, typer.Option(help="By default that of the readings in the settings.")] = None,
    rate: Annotated[float | None, typer.Option(help="Readings a second; by default as fast as it goes.")] = None,
    batch: Annotated[int, typer.Option(help="Readings a message, where the format holds several.")] = 500,
    form: Annotated[str, typer.Option("--format", help="json, batch-json or batch-msgpack.")] = "json",
    timezone: Annotated[str, typer.Option(help="Of time stamps that name none.")] = "UTC",
    config: Config = None,
) -> None:
    """Send the readings of files, side by side, as a gateway would: each sensor to the partition of its name."""
    from pipeline.adapters.files import DataError, read
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_producer import TopicProducer
    from pipeline.producing import format_of, messages, paced

    settings = settings_of(config)
    with sentences(DataError, KafkaAwayError, KafkaSetupError, wrong=(ValueError,)), Stages() as stages:
        asked = format_of(form)
        if batch < 1 or (rate is not None and rate <= 0):
            raise ValueError("--batch and --rate are more than 0")
        series = read(data, timezone)
        with TopicProducer(settings.kafka, topic or settings.kafka.topics.readings) as producer:
            stages.stage("produce", f"{len(series)} sensors", sum(map(len, series)))
            flushes = messages(series, producer.partitions, asked, batch)
            readings, sent = paced(
                flushes, lambda f: producer.send(f.key, f.value, f.headers, f.partition), rate, stages.advance
            )
            producer.flush()
    out.print(f"{readings} readings in {sent} messages to {producer.partitions} partitions")
