"""For tests of a configuration: the service, killed at a named point of its turn.

    python -m pipeline.testing committed:3 run --config foreshock.toml

is `foreshock run`, which ends by SIGKILL when it passes the point for the third time; with `committed:SIGUSR1`, when it
next passes it after that signal. The service itself knows nothing of this: a point is the end of a function that is
wrapped here.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline import cli
from pipeline.adapters import checkpoints, kafka_transactions
from pipeline.adapters.kafka import KafkaSource
from pipeline.adapters.kafka_checkpoints import TopicCheckpoints
from pipeline.groups import Groups

Place = tuple[Any, str]  # a function, and what has it

POINTS: dict[str, list[Place]] = {
    "polled": [(KafkaSource, "poll")],
    "stepped": [(Groups, "step")],
    "published": [(kafka_transactions, "_publish")],  # the broker has the messages; nothing else
    "in-transaction": [(kafka_transactions, "_send_offsets")],  # it has the offsets as well
    "committed": [(kafka_transactions, "_commit")],
    "mid-checkpoint": [(checkpoints, "_write"), (TopicCheckpoints, "_chunk")],  # a file or a chunk of several
    "mid-restore": [(Groups, "restore")],  # the state is there, no reading has been replayed
}


def kill_at(point: str, passes: int, kill: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)) -> None:
    """From now on, `kill` when the point is passed for the `passes`-th time, whoever passes it; KeyError if unknown."""
    left = passes

    def passed() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            kill()

    for owner, name in POINTS[point]:
        setattr(owner, name, _followed(getattr(owner, name), passed))


def _followed(function: Callable[..., Any], passed: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def followed(*args: Any, **words: Any) -> Any:
        result = function(*args, **words)
        passed()
        return result

    return followed


def main() -> None:
    """The first word is POINT:PASSES or POINT:SIGUSR1, the others are those of `foreshock`."""
    point, _, when = sys.argv.pop(1).partition(":")
    if when == signal.SIGUSR1.name:
        signal.signal(signal.SIGUSR1, lambda *_: kill_at(point, 1))
    else:
        kill_at(point, int(when or 1))
    cli.main()


if __name__ == "__main__":
    main()
