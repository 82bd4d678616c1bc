"""Metrics from what each turn returned, and logs as JSON events; never a label per sensor."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Generic, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pipeline.core.alerts import Alert, ModelRef
from pipeline.core.readings import SECOND, Reason
from pipeline.groups import IGNORED, MENDED
from pipeline.progress import Progress, Turn
from pipeline.settings_schema import LoggingSettings

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

METRIC_NAMES = (
    "foreshock_readings_total",
    "foreshock_rejected_total",
    "foreshock_ignored_total",
    "foreshock_mended_total",
    "foreshock_evicted_total",
    "foreshock_split_sensors_total",
    "foreshock_events_total",
    "foreshock_lag_records",
    "foreshock_watermark_timestamp_seconds",
    "foreshock_end_to_end_latency_seconds",
    "foreshock_step_seconds",
    "foreshock_sensors",
    "foreshock_alerts_open",
    "foreshock_alert_transitions_total",
    "foreshock_budget_alerts_per_reading",
    "foreshock_model_info",
    "foreshock_checkpoint_timestamp_seconds",
    "foreshock_checkpoint_seconds",
    "foreshock_commits_total",
    "foreshock_futile_commits_total",
    "foreshock_heartbeat_timestamp_seconds",
)

M = TypeVar("M", Counter, Gauge)


class Family(Generic[M]):
    """A metric with labels that keeps its children: `labels()` costs more than what is done with one."""

    def __init__(self, kind: type[M], name: str, meaning: str, *labels: str, registry: CollectorRegistry) -> None:
        self._metric: M = kind(name, meaning, labels, registry=registry)
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        """The child with these labels."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child

    def known(self) -> Collection[tuple[str, ...]]:
        """The labels of every child there is."""
        return self._children.keys()

    def keep(self, wanted: Collection[tuple[str, ...]]) -> None:
        """Let all other children go."""
        for labels in self._children.keys() - set(wanted):
            self._metric.remove(*labels)
            del self._children[labels]


class Telemetry:
    """Every metric of one service, on a registry of its own."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock

        def counter(name: str, meaning: str, *labels: str) -> Family[Counter]:
            return Family(Counter, name, meaning, *labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Family[Gauge]:
            return Family(Gauge, name, meaning, *labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, buckets=buckets, registry=registry)

        self._readings = counter("foreshock_readings", "Readings that reached their group's detector.", "group")
        self._rejected = counter("foreshock_rejected", "Messages, or readings of a batch, refused, and why.", "reason")
        self._ignored = counter("foreshock_ignored", "Good readings that were not scored, and why.", "reason")
        self._mended = counter("foreshock_mended", "Readings that were put right on the way in, and how.", "how")
        self._evicted = counter("foreshock_evicted", "Sensors that made room for others.", "group")
        self._split = Counter(
            "foreshock_split_sensors", "Sensors that came up in a second partition.", registry=registry
        )
        self._events = Counter("foreshock_events", "An operator's events among the readings.", registry=registry)
        self._lag = gauge("foreshock_lag_records", "Records that wait in a partition.", "partition")
        self._watermark = gauge("foreshock_watermark_timestamp_seconds", "Latest event time admitted.", "partition")
        self._latency = histogram(
            "foreshock_end_to_end_latency_seconds",
            "From the oldest record of a turn to the acknowledgement of what the turn said.",
            LATENCY_BUCKETS,
        )
        self._step = histogram("foreshock_step_seconds", "One step of one group's detector.", STEP_BUCKETS)
        self._sensors = gauge("foreshock_sensors", "Sensors by what they are doing.", "group", "state")
        self._open = gauge("foreshock_alerts_open", "Alerts that are open now.", "group", "kind")
        self._transitions = counter(
            "foreshock_alert_transitions", "Alerts published, by their state.", "group", "kind", "state"
        )
        self._budget = gauge(
            "foreshock_budget_alerts_per_reading", "False forecast alerts allowed a reading, by the budget.", "group"
        )
        self._model = gauge("foreshock_model_info", "The model that serves.", "group", "version", "sha256")
        self._checkpointed = Gauge(
            "foreshock_checkpoint_timestamp_seconds",
            "When the newest checkpoint was taken, of the partition where that is longest ago.",
            registry=registry,
        )
        self._checkpoint = histogram(
            "foreshock_checkpoint_seconds", "Writing the checkpoint of one partition.", LATENCY_BUCKETS
        )
        self._commits = Counter("foreshock_commits", "Commits of positions.", registry=registry)
        self._futile = Counter(
            "foreshock_futile_commits", "Commits that came to nothing and were due again.", registry=registry
        )
        self._heartbeat = Gauge(
            "foreshock_heartbeat_timestamp_seconds", "The last turn of the loop.", registry=registry
        )
        for reason in Reason:
            self._rejected(reason.value)  # 0 from the start, so that the first one shows as an increase
        for ignored in IGNORED:
            self._ignored(ignored)
        for how in MENDED:
            self._mended(how)

    def turned(self, turn: Turn, partitions: Mapping[int, Progress]) -> None:
        """What a turn did, and where its partitions stand."""
        self._heartbeat.set(self._clock())
        for scored in turn.stepped.scored:
            self._readings(scored.model.group).inc(len(scored.batch))
        for rejected in turn.refused:
            self._rejected(rejected.reason.value).inc(rejected.readings)
        stepped = turn.stepped
        for family, counts in (
            (self._ignored, stepped.ignored), (self._mended, stepped.mended), (self._evicted, stepped.evicted),
        ):  # fmt: skip
            for label, how_many in counts.items():
                family(label).inc(how_many)
        self._split.inc(len(turn.stepped.split))
        self._events.inc(turn.stepped.events)
        for alert in turn.alerts:
            self._transitions(alert.model.name, alert.kind.value, alert.state.value).inc()
        for seconds in turn.stepped.seconds:
            self._step.observe(seconds)
        for seconds in turn.checkpoint_seconds:
            self._checkpoint.observe(seconds)
        if turn.latency_seconds is not None:
            self._latency.observe(turn.latency_seconds)
        if turn.committed:
            self._commits.inc()
        self._futile.inc(turn.futile_commits)
        self._stand(partitions)

    def serves(self, models: Iterable[ModelRef], budgets: Mapping[str, float]) -> None:
        """The models that serve now, and the false alerts that each group is allowed a reading."""
        for group, allowed in budgets.items():
            self._budget(group).set(allowed)
        labels = [(model.name, model.version, model.sha256) for model in models]
        for names in labels:
            self._model(*names).set(1)
        self._model.keep(labels)

    def counted(self, census: Mapping[str, Mapping[str, int]], open_alerts: Iterable[Alert]) -> None:
        """Sensors by state and open alerts by kind: a look at every sensor, so not each turn."""
        for group, states in census.items():
            for state, how_many in states.items():
                self._sensors(group, state).set(how_many)
        open_now = Tally((alert.model.name, alert.kind.value) for alert in open_alerts)
        for group, kind in {*open_now, *self._open.known()}:
            self._open(group, kind).set(open_now[group, kind])

    def _stand(self, partitions: Mapping[int, Progress]) -> None:
        taken = []
        for partition, progress in partitions.items():
            if progress.end is not None:
                self._lag(str(partition)).set(max(progress.end - progress.position, 0))
            if progress.watermark:
                self._watermark(str(partition)).set(progress.watermark / SECOND)
            if progress.checkpoint_time is not None:
                taken.append(progress.checkpoint_time)
        if taken:
            self._checkpointed.set(min(taken))
        if len(self._lag.known()) > len(partitions) or len(self._watermark.known()) > len(partitions):
            ours = [(str(partition),) for partition in partitions]
            self._lag.keep(ours)
            self._watermark.keep(ours)


def configure_logging(settings: LoggingSettings) -> None:
    """Every event, the libraries' too, as one line on standard error: JSON for machines or colours for people."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last = structlog.dev.ConsoleRenderer() if settings.format == "console" else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for chatty in ("kafka", "uvicorn"):  # their info is our debug
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level) if settings.level != "debug" else "INFO")
