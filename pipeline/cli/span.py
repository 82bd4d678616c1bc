"""`foreshock replay --from-topic`: a span of the topic again, and whether the alerts were the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.bundle import BundleError
from pipeline.console import FAILED, Stages, err, out, sentences

if TYPE_CHECKING:
    from pipeline.adapters.kafka_span import Span, Stretch
    from pipeline.core.alerts import Alert
    from pipeline.ports import Checkpoints
    from pipeline.replay_topic import Part, Seen, TopicReplay
    from pipeline.settings import Settings
    from pipeline.verify import Verdict

OFFSET = "offset:"
TWICE = (
    "whoever reads the topic of the alerts finds these more than once. Most often a second group (kafka.group_id) "
    "serves the same readings and publishes to the same topic: give each group a kafka.topics.alerts of its own, and "
    "verify each with its own settings"
)
MOST_LISTED = 50  # of each kind; the figures count all
OPEN_TRANSACTION_SECONDS = 25.0  # by then the broker has ended what a killed member left open


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of the command."""

    topic: str
    start: str  # offset:N, a span such as 2h, or an RFC 3339 time
    end: str | None = None  # likewise; None: what there is
    partition: int | None = None  # None: each
    verify: bool = False
    scores: Path | None = None
    alerts: Path | None = None


def replay_span(settings: Settings, asked: Asked) -> None:
    """Replay what is asked for, and say what came of it; ends with status 1 where an alert differs."""
    from pipeline.adapters.columns import DataError
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_group import committed
    from pipeline.adapters.kafka_span import span
    from pipeline.app import kernel
    from pipeline.replay_topic import Seen, TopicReplay
    from pipeline.settings_schema import LoggingSettings
    from pipeline.telemetry import configure_logging
    from pipeline.verify import compare

    configure_logging(LoggingSettings(level="warning", format="console"))
    failures = (BundleError, DataError, KafkaAwayError, KafkaSetupError, OSError)
    with sentences(*failures, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"), ExitStack() as opened:
        # First how far the group is, then the alerts: those of what it has committed are among them.
        upto = committed(settings.kafka, asked.topic) if asked.verify else None
        topic = opened.enter_context(span(settings.kafka, asked.topic))
        stretches = _stretches(topic, asked, upto)
        published = list(_published(settings, asked.topic, stretches)) if asked.verify else []
        past = TopicReplay(settings, asked.topic, opened.enter_context(closing(_kept(settings))), kernel(settings))
        stages, seen = opened.enter_context(Stages()), Seen() if asked.scores is not None else None
        raised: list[Alert] = []
        other_kernel = set()
        for partition, stretch in stretches.items():
            for part in past.parts(partition, stretch, topic.bounds[partition].first):
                raised += _alerts(past, topic, part, seen, stages)
                other_kernel |= {partition} if part.kernel else set()
                _tell(part)
        _leave(settings, asked, raised, seen, past.fleet)
    if not asked.verify:
        out.print(f"{len(raised)} alert messages")
        return
    verdict = compare(published, raised, {p: stretch.first for p, stretch in stretches.items()}, other_kernel)
    _tell_verdict(verdict)
    if verdict.differences:
        raise typer.Exit(FAILED)


def _stretches(topic: Span, asked: Asked, committed: dict[int, int] | None) -> dict[int, Stretch]:
    """What is asked for of each partition; to verify it, as far as the group has committed."""
    from pipeline.adapters.columns import DataError
    from pipeline.adapters.kafka_span import Stretch

    firsts = _offsets(topic, asked.start)
    ends = _offsets(topic, asked.end) if asked.end is not None else {p: of.end for p, of in topic.bounds.items()}
    found = {}
    for partition, there in topic.bounds.items():
        upto = there.end if committed is None else committed.get(partition, 0)
        first, end = max(firsts[partition], there.first), min(ends[partition], there.end, upto)
        if asked.partition in (None, partition) and first < end:
            found[partition] = Stretch(first, end)
    if not found:
        read = "" if committed is None else " that the group has read"
        raise DataError(f"topic {asked.topic}: holds nothing of this span{read}; go further back with --start")
    return found


def _offsets(topic: Span, text: str) -> dict[int, int]:
    from pipeline.adapters.kafka_history import parse_since

    offset = text.removeprefix(OFFSET)
    if offset != text and offset.isdecimal():
        return dict.fromkeys(topic.bounds, int(offset))
    return topic.at(parse_since(text, datetime.now(UTC)))


def _kept(settings: Settings) -> Checkpoints:
    from pipeline.adapters.checkpoints import FolderCheckpoints
    from pipeline.adapters.kafka_checkpoints import KeptInTopic

    if settings.checkpoints.store == "topic":
        return KeptInTopic(settings.kafka, err.print)
    return FolderCheckpoints(settings.checkpoints.dir)


def _published(settings: Settings, topic: str, stretches: dict[int, Stretch]) -> Iterator[Alert]:
    """What a read_committed reader finds of these stretches, and every silence of their partitions."""
    from pipeline.adapters.kafka_history import read_alerts
    from pipeline.adapters.kafka_span import Stretch
    from pipeline.core.alerts import Kind
    from pipeline.core.readings import Rejected

    strangers, none = 0, Stretch(0, 0)
    for alert in read_alerts(settings.kafka, settings.kafka.topics.alerts, OPEN_TRANSACTION_SECONDS):
        if isinstance(alert, Rejected):
            strangers += 1
            continue
        at, stretch = alert.evidence, stretches.get(alert.evidence.partition, none)
        if at.topic == topic and (stretch.holds(at.last_offset) or (stretch.end and alert.kind is Kind.INPUT_SILENT)):
            yield alert
    if strangers:
        err.print(f"{strangers} messages in {settings.kafka.topics.alerts} are no alerts")


def _alerts(past: TopicReplay, topic: Span, part: Part, seen: Seen | None, stages: Stages) -> Iterator[Alert]:
    from pipeline.adapters.kafka_span import Stretch

    if seen is not None:
        seen.under(part.groups)
    stages.stage(f"partition {part.partition}", "replay", part.stretch.end - part.begins)
    whole = {part.partition: Stretch(part.begins, part.stretch.end)}
    records = topic.records(whole, on_records=lambda read, _: stages.advance(read))
    yield from past.alerts(part, records, seen.add if seen is not None else lambda _: None)


def _leave(settings: Settings, asked: Asked, raised: list[Alert], seen: Seen | None, fleet: int) -> None:
    """The files that were asked for."""
    from pipeline.codecs.json import encode_alert

    if asked.alerts is not None:
        asked.alerts.write_bytes(b"".join(encode_alert(alert) + b"\n" for alert in raised))
    if asked.scores is not None and seen is not None:
        seen.replay(raised, fleet).write(asked.scores, settings.detection.budget)


def _tell(part: Part) -> None:
    first, end = part.stretch
    where = f"partition {part.partition}, offsets {first} to {end - 1}"
    if not part.checkpoint:
        out.print(f"{where}: no checkpoint before them; replayed from offset {part.begins}, where sensors were new")
        return
    out.print(f"{where}: from checkpoint {part.checkpoint}", markup=False, soft_wrap=True)
    if part.changed:
        out.print(f"  taken under {part.changed}: what differs may come of that", markup=False)
    if part.kernel:
        out.print(f"  computed by {part.kernel}: numbers are compared to three digits", markup=False)


def _tell_verdict(verdict: Verdict) -> None:
    """Every difference up to so many of a kind, what could not be compared, and the figures of both."""
    for what, how_many in Counter(difference.what for difference in verdict.differences).items():
        listed = [difference for difference in verdict.differences if difference.what == what][:MOST_LISTED]
        for difference in listed:
            fields = [f"{name} {told!r} -> {again!r}" for name, (told, again) in difference.fields.items()]
            _line(what, difference.alert, "; ".join(fields))
        if how_many > len(listed):
            out.print(f"{what}: and {how_many - len(listed)} more")
    for alert, why in verdict.apart:
        _line("apart", alert, why)
    figures = Counter(difference.what for difference in verdict.differences)
    if figures["twice"]:
        out.print(f"twice: {TWICE}", soft_wrap=True)
    differs = ", ".join(f"{n} {what}" for what, n in figures.items()) or "nothing differs"
    apart = f"; {len(verdict.apart)} apart" if verdict.apart else ""
    out.print(f"{verdict.published} alert messages published, {verdict.replayed} replayed: {differs}{apart}")


def _line(what: str, alert: Alert, more: str) -> None:
    place = f"{alert.evidence.partition}/{alert.evidence.last_offset}"
    said = (
        f"{what}: {alert.alert_id} revision {alert.revision}, {alert.kind} {alert.state} of {alert.sensor} at {place}"
    )
    out.print(f"{said}{': ' if more else ''}{more}", markup=False, soft_wrap=True)
