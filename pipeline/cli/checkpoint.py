"""`foreshock checkpoint`: what a restart continues from."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from pipeline.cli.words import Config, settings_of
from pipeline.console import err, out, sentences


def repartition(
    config: Config = None,
    accept_unread: Annotated[
        bool, typer.Option(help="Though messages wait: of a sensor that moves, those start it afresh.")
    ] = False,
) -> None:
    """After the topic of the readings was widened: every sensor's state goes to its new partition."""
    from pipeline.adapters.checkpoints import FolderCheckpoints
    from pipeline.adapters.kafka_checkpoints import TopicCheckpoints
    from pipeline.adapters.kafka_commits import CHECKPOINTS
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_group import IdleGroup, place_of
    from pipeline.adapters.kafka_transactions import transactions
    from pipeline.ports import CheckpointError, CheckpointStore
    from pipeline.repartition import repartitioned, sources

    settings = settings_of(config)
    kept, topic = settings.checkpoints, settings.kafka.topics.readings
    with sentences(CheckpointError, KafkaAwayError, KafkaSetupError, OSError), ExitStack() as opened:
        group = IdleGroup(settings.kafka)
        opened.callback(group.close)
        committed = group.read()
        if not committed:
            raise CheckpointError(f"group {settings.kafka.group_id}: has read nothing, so there is nothing to do")
        if (unread := group.unread(committed)) and not accept_unread:
            raise CheckpointError(
                f"{topic}: {unread} messages wait in partitions that were read before; a sensor that moves would be "
                "read in two of them; widen a topic that was read to its end, or give --accept-unread"
            )
        store: CheckpointStore = FolderCheckpoints(kept.dir, kept.keep_days)
        if kept.store == "topic":
            writing = transactions(settings.kafka, CHECKPOINTS, group, err.print)
            store = TopicCheckpoints(settings.kafka, writing, err.print)
            opened.callback(store.close)
        wider = repartitioned(sources(store, topic, committed, group.partitions), group.partitions, place_of)
        store.save_all(wider)
        group.commit({c.partition: c.position for c in wider})
    sensors = sum(len(arrays["names"]) for c in wider for arrays in c.groups.values())
    out.print(f"{sensors} sensors in {len(wider)} partitions; start the service")
