"""The service."""

from __future__ import annotations

from pipeline.bundle import BundleError
from pipeline.cli.words import Config, settings_of
from pipeline.console import sentences
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
