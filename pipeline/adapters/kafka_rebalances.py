"""What the group decides about partitions, as kafka-python tells it on its own thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Cooperative-sticky. A member that joins once more looks different, or the broker would leave all as it is."""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolSubscription:
        """What a member says of itself when it joins."""
        subscription = super().metadata(topics)
        subscription.user_data = str(self.generation).encode()  # nobody reads it
        return subscription


class GivenUpError(Exception):
    """Ends a poll in which partitions were given up."""

    def __str__(self) -> str:
        return "partitions are given up"


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the group decides, for the loop to follow.

    The client calls this on its own I/O thread, inside a poll of the loop's. It only notes and pauses: the loop has
    restored no state yet, and a partition that it does not know must not speak.
    """

    def __init__(self, noted: deque[tuple[str, list[int]]]) -> None:
        self.noted = noted
        self.consumer: KafkaConsumer | None = None
        self.leaving = False

    def on_partitions_assigned(self, assigned: AbstractSet[TopicPartition]) -> None:
        """They are ours from now on."""
        if self.consumer is not None:
            self.consumer.pause(*assigned)
        self.noted.append(("assigned", sorted(tp.partition for tp in assigned)))

    def on_partitions_revoked(self, revoked: AbstractSet[TopicPartition]) -> None:
        """Others ask for them; they can still be committed."""
        self.noted.append(("given up", sorted(tp.partition for tp in revoked)))
        if not self.leaving:
            # The client would go on at once to the rebalance that hands them on, and take no commit for them any more.
            raise GivenUpError

    def on_partitions_lost(self, lost: AbstractSet[TopicPartition]) -> None:
        """Others have them: the group took this member for dead."""
        self.noted.append(("lost", sorted(tp.partition for tp in lost)))


def lose_all_when_put_out(consumer: KafkaConsumer) -> None:
    """Have a member that only its attempt to join tells that the group has put it out lose its partitions.

    kafka-python asks whether they are lost once, before the first attempt. A member that learns it by the answer would
    keep those that it is given back, as if nobody had gone on with them meanwhile, and say again what others have said.
    """
    coordinator = consumer._coordinator
    forget = coordinator.reset_generation

    def forget_and_prepare_again(*member_id: str) -> None:
        forget(*member_id)
        coordinator.rejoining = False

    coordinator.reset_generation = forget_and_prepare_again


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and record.exc_info[0] is GivenUpError)


logging.getLogger("kafka.coordinator.consumer").addFilter(_is_news)  # it calls what ends the poll a failure
