"""The broker in memory keeps the contract of the real ones."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime

import pytest

from pipeline.adapters.memory import MemoryBroker, MemorySink, MemorySource
from pipeline.core.readings import SECOND
from pipeline.ports import Sink, Source
from tests.contract.source_and_sink import SourceAndSinkContract, World


class MemoryWorld:
    def __init__(self) -> None:
        self.broker = MemoryBroker(partitions=2)

    def member(self, start: str | datetime = "earliest") -> AbstractContextManager[tuple[Source, Sink]]:
        at = int(start.timestamp() * SECOND) if isinstance(start, datetime) else start
        return nullcontext((MemorySource(self.broker, at), MemorySink(self.broker)))

    def produce(self, values: list[bytes], partition: int = 0) -> None:
        for value in values:
            self.broker.produce(value, partition=partition)

    def published(self) -> tuple[list[bytes], int]:
        return [alert.alert_id.encode() for alert in self.broker.alerts], len(self.broker.dead_letters)


class TestMemory(SourceAndSinkContract):
    @pytest.fixture
    def world(self) -> World:
        return MemoryWorld()
