"""A service's turns on a broker in memory, for a profiler to look at: JSON messages in, scores, alerts, commits.

py-spy record --rate 1000 --nolineno --format raw --output turns.txt -- python -m benchmarks.turns numba
python -m benchmarks.flame turns.txt benchmarks/turns.svg
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.fleets import Fleet, known
from pipeline.adapters.memory import MemoryBroker
from pipeline.app import kernel, pace_of
from pipeline.runner import Runner
from pipeline.serving import serving
from pipeline.settings_schema import Settings
from pipeline.telemetry import configure_logging
from pipeline.testing.script import Member
from tests.models import INTERVAL, START

SENSORS, TICKS, PARTITIONS, MESSAGES = 2000, 200, 6, 5000


def main(form: str) -> None:
    """Prepare, then take turns until all is read."""
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": "nowhere:9092"}, "kernel": form})
    configure_logging(settings.logging.model_copy(update={"level": "warning"}))
    model = known(SENSORS, 1, 32)
    with TemporaryDirectory() as folder, threadpool_limits(limits=1):
        serves = serving(settings, {model.group: model})
        broker = MemoryBroker(settings.kafka.topics.readings, PARTITIONS)
        runner = Member(broker, Path(folder), serves, pace_of(settings), MESSAGES, kernel=kernel(settings)).start()
        turns(runner, MESSAGES)
        fill(broker, Fleet(model, tuple(f"s{i}" for i in range(SENSORS))))
        began = time.process_time()
        turns(runner, SENSORS * TICKS)
        cost = (time.process_time() - began) / (SENSORS * TICKS) * 1e6
        read = sum(partition.done.offset for partition in runner.partitions.values())
        assert read == SENSORS * TICKS, read
    print(f"{form}: {cost:.1f} µs of processor time a message")


def fill(broker: MemoryBroker, fleet: Fleet) -> None:
    """What the sensors send, one reading a message."""
    fleet.clock = 100_000
    for _ in range(TICKS):
        fleet.tick()
        stamp = START + fleet.clock * INTERVAL
        for sensor, value in enumerate(fleet.values(np.arange(SENSORS).tolist())[:, 0].tolist()):
            told = f'{{"sensor": "s{sensor}", "time": {stamp // 1000}, "values": {{"c0": {value:.4f}}}}}'
            broker.produce(told.encode(), partition=sensor % PARTITIONS, timestamp=stamp)


def turns(runner: Runner, messages: int) -> None:
    """As many as so many messages take, and some more."""
    for _ in range(messages // MESSAGES + 20):
        runner.turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
