"""`make chaos`: members of one group are killed all the time, and what they say is that of a service left in peace."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from pipeline.console import FAILED, OK, Stages, err, out
from tests.brokers import BrokerRequiredError, best_broker
from tests.chaos.trial import Trial, trial
from tests.chaos.verdict import examples, recovery_seconds
from tests.chaos.world import Size

SAY_EVERY = 10  # kills
CLIENTS = {name: (name,) for name in ("kafka-python", "librdkafka")} | {"mixed": ("kafka-python", "librdkafka")}


def main() -> int:
    """Run it and say how it went; the exit status."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    for name, default in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--store", choices=("folder", "topic"), default="folder", help="where checkpoints are kept")
    parser.add_argument("--client", choices=CLIENTS, default="kafka-python", help="of the members that are killed")
    parser.add_argument("--kernel", choices=("numpy", "numba"), default="numpy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=14.0, help="for all of it; kills end after 70 %%")
    parser.add_argument("--without-checkpoints", action="store_true", help="to see that it can fail")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    try:
        broker = best_broker({**os.environ, "FORESHOCK_REQUIRE_KAFKA": "1"})
    except BrokerRequiredError as why:
        err.print(str(why), style="red", markup=False, soft_wrap=True)
        return FAILED
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with Stages() as stages:
            seen = trial(
                broker,
                folder,
                Size(**{name: getattr(asked, name) for name in Size._fields}),
                Stage(stages),
                store=asked.store,
                clients=CLIENTS[asked.client],
                kernel=asked.kernel,
                seed=asked.seed,
                minutes=asked.minutes,
                without_checkpoints=asked.without_checkpoints,
            )
    except BaseException:
        err.print(f"what the services logged is in {folder}", markup=False, soft_wrap=True)
        raise
    finally:
        broker.stop()
    if asked.json is not None:
        asked.json.write_text(json.dumps(asdict(seen.figures), indent=1) + "\n", encoding="utf-8")
    show(seen)
    if seen.shortcomings:
        err.print(f"what the services logged is in {folder}", markup=False, soft_wrap=True)
        return FAILED
    shutil.rmtree(folder)
    return OK


class Stage:
    """Where it stands: a bar, or a line now and then where there is no terminal."""

    def __init__(self, stages: Stages) -> None:
        self._stages, self._what = stages, ""

    def __call__(self, what: str, done: int, of: int, words: str) -> None:
        """So many steps of this stage are done."""
        if what != self._what:
            self._what = what
            self._stages.stage("chaos", what, of)
        elif not err.is_terminal and done % SAY_EVERY == 0:
            err.print(f"{done} of {of}: {words}", markup=False)
        self._stages.advance(done, words)


def show(seen: Trial) -> None:
    """The kills by point, the figures, and what differs."""
    table = Table("killed at", "kills", "back to work, median", "at most")
    for point, kills in sorted(seen.killed_at.items()):
        seconds = recovery_seconds(seen.course, point)
        shown = [f"{np.median(seconds):.1f} s", f"{max(seconds):.1f} s"] if seconds else ["", ""]
        table.add_row(point, str(kills), *shown)
    out.print(table)
    table = Table("figure", "value")
    for name, value in asdict(seen.figures).items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    table.add_row("a read_uncommitted reader finds twice", f"{seen.uncommitted:,}")
    out.print(table)
    for line in examples(seen.difference, seen.course):
        out.print(line, markup=False, soft_wrap=True)
    for shortcoming in seen.shortcomings:
        out.print(shortcoming, style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
