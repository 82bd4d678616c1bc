"""`make chaos` in short, on Apache Kafka: members that are killed say what a service says that is left in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.chaos.trial import trial
from tests.chaos.world import Size


def quietly(stage: str, done: int, of: int, words: str) -> None:
    """Nobody watches a test."""


@pytest.mark.kafka_only
def test_three_members_that_are_killed_all_the_time_say_what_one_says_that_is_not(
    broker: Broker, tmp_path: Path
) -> None:
    size = Size(kills=8, readings=24_000, sensors=24, pause=2.0)
    shown = trial(broker, tmp_path, size, quietly, store="topic").figures
    assert (shown.missing, shown.spurious, shown.duplicates) == (0, 0, 0)
    assert (shown.kills, shown.members) == (8, 3)
    assert shown.readings >= 24_000
    assert shown.open_at_kill > 0


@pytest.mark.kafka_only
def test_without_checkpoints_members_that_are_killed_do_say_something_else(broker: Broker, tmp_path: Path) -> None:
    """The test above can fail."""
    size = Size(kills=2, readings=8_000, sensors=12, partitions=2, members=2, pause=2.0)
    seen = trial(broker, tmp_path, size, quietly, without_checkpoints=True)
    assert seen.figures.missing + seen.figures.spurious > 0
    assert seen.shortcomings
