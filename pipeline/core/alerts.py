"""The alert as an operator reads it: what was seen, what was expected, and where to replay it from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

IDENTITY_VERSION = "1"


class Kind(StrEnum):
    """What is wrong. Only `forecast` has a score; the others carry a measure, its limit and unit."""

    FORECAST = "forecast"
    STUCK = "stuck"
    GAP = "gap"
    LIMIT = "limit"
    CLOCK = "clock"
    INPUT_SILENT = "input-silent"  # not of a sensor but of a partition, see `silence`


class State(StrEnum):
    """Where in its life an alert is."""

    FIRING = "firing"
    UPDATE = "update"
    RESOLVED = "resolved"


class Resolution(StrEnum):
    """Why an alert ended; only `returned` means that it is over."""

    RETURNED = "returned"
    ACCEPTED = "accepted"
    EVICTED = "evicted"
    RETIRED = "retired"


class Severity(StrEnum):
    """How far beyond the threshold an episode went."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The stretch of the topic that shows the episode; the runner adds the topic and the checkpoint."""

    partition: int
    first_offset: int
    last_offset: int
    topic: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which bundle said so; the hash is that of its manifest, which names all others."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Alert:
    """One transition of one episode. Times are µs UTC of event time; values are in the channel's own unit."""

    alert_id: str
    revision: int
    state: State
    kind: Kind
    severity: Severity
    sensor: str
    start: int
    last: int
    evidence: Evidence
    model: ModelRef
    channel: str = ""  # "" where the whole sensor is meant
    end: int | None = None
    resolution: Resolution | None = None
    score: float | None = None
    threshold: float | None = None
    extrapolated: bool = False  # the score lies beyond what calibration has seen
    measure: float | None = None
    limit: float | None = None
    unit: str = ""
    expected: Mapping[str, float] = field(default_factory=dict)
    actual: Mapping[str, float] = field(default_factory=dict)
    band: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)
    imputed: int = 0  # values of the window a forecast alert rests on that never came and were filled in
    detection_delay_ms: int | None = None  # of event time, from the start to the reading that showed it; when firing
    mode: str = "live"  # live, catchup, replay, shadow: set by whoever runs the detector


def alert_id(sensor: str, kind: Kind, channel: str, start: int) -> str:
    """First 16 hex digits of SHA-256 over (version, sensor, kind, channel, start in µs)."""
    identity = "\x1f".join((IDENTITY_VERSION, sensor, kind.value, channel, str(start)))
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
