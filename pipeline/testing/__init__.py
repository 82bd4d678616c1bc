"""For tests of a configuration: the service on a broker in memory as a script says, or killed at a named point."""

from pipeline.testing.points import POINTS, at, kill_at, pause_at
from pipeline.testing.script import (
    ABORT,
    AWAY,
    END,
    FENCED,
    PAUSE,
    REDELIVER,
    Member,
    Played,
    Time,
    plain,
    play,
    readings,
)

__all__ = [
    "ABORT",
    "AWAY",
    "END",
    "FENCED",
    "PAUSE",
    "POINTS",
    "REDELIVER",
    "Member",
    "Played",
    "Time",
    "at",
    "kill_at",
    "pause_at",
    "plain",
    "play",
    "readings",
]
