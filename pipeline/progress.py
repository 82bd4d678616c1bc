"""How the loop runs, where each partition stands, and what a turn did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.core.alerts import Alert
from pipeline.core.readings import Rejected
from pipeline.groups import Stepped
from pipeline.ports import Moment, Position


@dataclass(frozen=True, slots=True)
class Pace:
    """How the loop runs."""

    topic: str
    poll_seconds: float = 0.5
    commit_seconds: float = 1.0
    checkpoint_seconds: float = 60.0
    let_go_seconds: float = 20.0  # for all partitions of a rebalance together: the others wait
    catchup_after_seconds: float = 300.0
    scores: bool = False  # hand every score to the sink


@dataclass(frozen=True, slots=True)
class Clock:
    """The time outside; the detectors know none."""

    wall: Callable[[], float] = time.time  # s since 1970
    monotonic: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Progress:
    """Where one partition stands."""

    position: int  # next offset to step
    replay_until: int  # outputs below this offset were delivered by whoever committed it
    committed: Position | None
    ticks: tuple[Moment, ...] = ()  # the newest that changed something; a restart needs those since its checkpoint
    again: list[Moment] = field(default_factory=list)  # those that the replay has still to come to
    watermark: int = 0  # µs, largest event time admitted; 0: none yet
    arrived: float = 0.0  # monotonic s, when the last record came
    end: int | None = None  # offset behind the last record, where known
    end_at_tick: int | None = None  # the same, a tick ago
    restoring: bool = True
    checkpoint: str = ""  # the newest, by name
    checkpoint_due: float = 0.0  # monotonic s
    checkpoint_time: float | None = None  # wall s, when the newest was written, or was as good as new
    kept: Position | None = None  # what the newest holds

    @property
    def done(self) -> Position:
        """What a commit would say now."""
        return Position(self.position, self.ticks)


@dataclass(slots=True)
class Turn:
    """What a turn did, for metrics and for whoever watches."""

    stepped: Stepped = field(default_factory=Stepped)
    alerts: Sequence[Alert] = ()  # committed in this turn, those of turns before among them
    refused: Sequence[Rejected] = ()  # likewise
    replayed: int = 0  # records stepped again after a restart, with their outputs suppressed
    latency_seconds: float | None = None  # from the oldest record since the last commit to this one
    committed: bool = False
    futile_commits: int = 0  # that came to nothing, and are due again
    checkpoint_seconds: list[float] = field(default_factory=list)
    waiting_for: str = ""  # why the service is not ready; "" where it is
