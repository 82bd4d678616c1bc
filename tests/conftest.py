"""What every test shares: one broker a run, fresh topics, the reproducible profile of hypothesis."""

from __future__ import annotations

import os

# Before anything imports numpy: its BLAS reads these once, and served scores are those of one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from hypothesis import settings

with warnings.catch_warnings():
    # kafka-python reads its schemas through calls that Python 3.11 deprecated and 3.13 took back.
    warnings.filterwarnings("ignore", r"(read|open)_text is deprecated", DeprecationWarning)
    from kafka import KafkaAdminClient

from tests.brokers import Broker, best_broker
from tests.faults import in_long_form, pytest_addoption, pytest_configure, seen

__all__ = ["in_long_form", "pytest_addoption", "pytest_configure", "seen"]  # the table of faults

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

BROKER = pytest.StashKey[Broker]()
START_SECONDS = pytest.StashKey[float]()
NOT_RUN = pytest.StashKey[list[str]]()


class NewTopics(Protocol):
    """Creates topics that no other test knows."""

    def __call__(self, *stems: str, partitions: int = 1, **config: str) -> list[str]:
        """Their names, one for each stem, in order."""


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The best broker this machine has; the summary at the end says which."""
    began = time.monotonic()
    chosen = best_broker()
    pytestconfig.stash[BROKER] = chosen
    pytestconfig.stash[START_SECONDS] = time.monotonic() - began
    yield chosen
    chosen.stop()


@pytest.fixture
def topics(broker: Broker) -> Iterator[NewTopics]:
    """Fresh topics: `readings, alerts = topics("readings", "alerts", partitions=3)`."""
    with fresh_topics(broker) as create:
        yield create


@contextmanager
def fresh_topics(broker: Broker) -> Iterator[NewTopics]:
    """They go at the end."""
    created: list[str] = []
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:

        def create(*stems: str, partitions: int = 1, **config: str) -> list[str]:
            names = [f"{stem}-{uuid.uuid4().hex[:8]}" for stem in stems]
            wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": config}
            admin.create_topics(dict.fromkeys(names, wanted), wait_for_metadata=True)
            created.extend(names)
            return names

        yield create
        if created:
            admin.delete_topics(created)


@pytest.fixture(autouse=True)
def _apache_kafka_where_it_matters(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("kafka_only") is None:
        return
    chosen: Broker = request.getfixturevalue("broker")
    if not chosen.is_apache_kafka:
        request.config.stash.setdefault(NOT_RUN, []).append(request.node.nodeid)
        pytest.skip(f"needs Apache Kafka; the best broker here is {chosen.name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes tells the first what the summary is to say."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None and (chosen := session.config.stash.get(BROKER, None)) is not None:
        told["broker"] = chosen.name, chosen.bootstrap, chosen.is_apache_kafka, chosen.passed_over
        told["start"], told["not run"] = session.config.stash[START_SECONDS], session.config.stash.get(NOT_RUN, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told, stash = getattr(node, "workeroutput", {}), node.config.stash
    if "broker" in told:
        name, bootstrap, is_apache_kafka, passed_over = told["broker"]
        stash[BROKER] = Broker(name, bootstrap, is_apache_kafka, lambda: None, tuple(passed_over))
        stash[START_SECONDS] = told["start"]
        stash.setdefault(NOT_RUN, []).extend(told["not run"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    chosen = config.stash.get(BROKER, None)
    if chosen is None:
        return
    terminalreporter.section("broker")
    terminalreporter.line(f"{chosen.name}, ready after {config.stash[START_SECONDS]:.1f} s")
    for reason in chosen.passed_over:
        terminalreporter.line(f"passed over: {reason}")
    if not_run := config.stash.get(NOT_RUN, []):
        terminalreporter.line(f"real-broker suite NOT RUN: {len(not_run)} tests need Apache Kafka", red=True, bold=True)
