"""What the group decides about partitions, noted on the client's thread for the loop to follow on its own."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import RetriableError
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription

from pipeline.adapters.kafka_connection import KafkaAwayError, connection
from pipeline.settings_schema import KafkaSettings

ANSWER_MS = 5_000


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

    def __init__(self) -> None:
        self.noted: deque[tuple[str, list[TopicPartition]]] = deque()
        self.consumer: KafkaConsumer | None = None
        self.leaving = False

    def on_partitions_assigned(self, assigned: AbstractSet[TopicPartition]) -> None:
        """They are ours from now on."""
        if self.consumer is not None:
            self.consumer.pause(*assigned)
        self.noted.append(("assigned", sorted(assigned)))

    def on_partitions_revoked(self, revoked: AbstractSet[TopicPartition]) -> None:
        """Others ask for them; they can still be committed."""
        self.noted.append(("given up", sorted(revoked)))
        if not self.leaving:
            # The client would go on at once to the rebalance that hands them on, and take no commit for them any more.
            raise GivenUpError

    def on_partitions_lost(self, lost: AbstractSet[TopicPartition]) -> None:
        """Others have them: the group took this member for dead."""
        self.noted.append(("lost", sorted(lost)))


def nobodys(settings: KafkaSettings, partitions: AbstractSet[int]) -> set[int] | None:
    """Those of the readings' partitions that the group has given to no member; None where it cannot be asked now.

    A member that is killed after it gave partitions up, before it joins again to say so, leaves them behind: back under
    its name, it is given what it had kept, and no rebalance comes that would give the others to anybody.
    """
    try:
        with KafkaAdminClient(**connection(settings), request_timeout_ms=ANSWER_MS) as admin:
            group = admin.describe_groups([settings.group_id])[settings.group_id]
    except (KafkaAwayError, RetriableError):
        return None
    if group["group_state"] != "Stable":
        return None
    given: set[int] = set()
    for member in group["members"]:
        for of_topic in member["member_assignment"]["assigned_partitions"] if member["member_assignment"] else ():
            given |= set(of_topic["partitions"]) if of_topic["topic"] == settings.topics.readings else set()
    return set(partitions) - given


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and record.exc_info[0] is GivenUpError)


logging.getLogger("kafka.coordinator.consumer").addFilter(_is_news)  # it calls what ends the poll a failure
