"""The service, killed or held up at a named point of its turn. It knows nothing of this: points are wrapped here."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.adapters import checkpoints, kafka_commits
from pipeline.adapters.kafka_checkpoints import TopicCheckpoints
from pipeline.adapters.kafka_member import GroupMember
from pipeline.groups import Groups

Place = tuple[Any, str]  # a function, and what has it

POINTS: dict[str, list[Place]] = {
    "polled": [(GroupMember, "poll")],
    "stepped": [(Groups, "step")],
    "published": [(kafka_commits, "_publish")],  # the broker has the messages; nothing else
    "in-transaction": [(kafka_commits, "_send_offsets")],  # it has the offsets as well
    "committed": [(kafka_commits, "_commit")],
    "mid-checkpoint": [(checkpoints, "_write"), (TopicCheckpoints, "_chunk")],  # a file or a chunk of several
    "mid-restore": [(Groups, "restore")],  # the state is there, no reading has been replayed
}


def kill_at(point: str, passes: int, kill: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)) -> None:
    """From now on, `kill` when the point is passed for the `passes`-th time, whoever passes it; KeyError if unknown."""
    _watch(point, lambda pass_: kill() if pass_ == passes else None)


def pause_at(point: str, passes: int, seconds: float, pause: Callable[[float], None] = time.sleep) -> None:
    """From now on, each pass of the point takes `seconds` longer, from the `passes`-th on; KeyError if unknown."""
    _watch(point, lambda pass_: pause(seconds) if pass_ >= passes else None)


def at(words: str) -> None:
    """Do what POINT[:PASSES[:SECONDS]] says: kill at that pass, or be slow from there on; ValueError if it is none.

    With SIGUSR1 for PASSES, kill at the first pass after that signal.
    """
    point, passes, seconds = [*words.split(":"), "", ""][:3]
    if point not in POINTS:
        raise ValueError(f"{point!r} is no point of a turn; there are {', '.join(POINTS)}")
    if passes == signal.SIGUSR1.name:
        signal.signal(signal.SIGUSR1, lambda *_: kill_at(point, 1))
        return
    do = partial(pause_at, seconds=float(seconds)) if seconds else kill_at
    do(point, int(passes or 1))


def _watch(point: str, passed: Callable[[int], None]) -> None:
    """Call `passed` with 1, 2, ... behind whatever the point stands for."""
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1
        passed(passes)

    for owner, name in POINTS[point]:
        setattr(owner, name, _followed(getattr(owner, name), count))


def _followed(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def followed(*args: Any, **words: Any) -> Any:
        result = function(*args, **words)
        then()
        return result

    return followed
