"""The whole of it: readings, members that are killed while they come in, a service that is not, the comparison."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.brokers import Broker
from tests.chaos.members import AWAY_SECONDS, Course, Members
from tests.chaos.plan import Kill, plan
from tests.chaos.verdict import Difference, Figures, compared, figures, said
from tests.chaos.world import Size, World
from tests.conftest import fresh_topics

KILLING_SHARE = 0.7  # of the time there is; the rest is for the drain and the service that nobody disturbs

Report = Callable[[str, int, int, str], None]  # stage, steps done, of how many, what to say of the last


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one."""

    figures: Figures
    difference: Difference
    course: Course
    kills: Sequence[Kill]  # as planned
    uncommitted: int  # messages that a read_uncommitted reader would have found twice

    @property
    def shortcomings(self) -> list[str]:
        """Why it does not show what it is to show."""
        counts = {what: getattr(self.figures, what) for what in ("missing", "spurious", "duplicates")}
        short = [f"{what}: {n}" for what, n in counts.items() if n]
        if len(self.course.killed) < len(self.kills):
            short.append(f"time for {len(self.course.killed)} of {len(self.kills)} kills only")
        never = {kill.point for kill in self.kills} - self.killed_at.keys()
        return short + [f"nobody was killed at {point}" for point in sorted(never)]

    @property
    def killed_at(self) -> Counter[str]:
        """Kills at each point."""
        return Counter(killed.point for killed in self.course.killed)


def trial(
    broker: Broker,
    folder: Path,
    size: Size,
    report: Report,
    *,
    store: Literal["folder", "topic"] = "folder",
    clients: Sequence[str] = ("kafka-python",),
    kernel: str = "numpy",
    seed: int = 0,
    minutes: float = 15.0,
    without_checkpoints: bool = False,
) -> Trial:
    """Run it; the one that nobody disturbs is of the same kernel, and by kafka-python.

    Logs, models and checkpoints stay in `folder`. `without_checkpoints` every start finds none.
    """
    began = time.monotonic()
    kills = plan(size.kills, size.members, size.pause, AWAY_SECONDS, seed)
    with fresh_topics(broker) as topics:
        report("readings", 0, 1, "")
        world = World(broker, topics, folder, size, kernel)
        report("kills", 0, len(kills), "starting the members")
        with Members(world, kills, store, clients, without_checkpoints=without_checkpoints) as members:
            until = began + minutes * 60 * KILLING_SHARE
            course = members.suffer(lambda done, words: report("kills", done, len(kills), words), until)
        world.stream.close()
        report("undisturbed", 0, 1, "")
        undisturbed = world.undisturbed(began + minutes * 60 - time.monotonic())
        expected, found = said(broker.bootstrap, undisturbed), said(broker.bootstrap, members.outputs)
        open_to_all = said(broker.bootstrap, members.outputs, "read_uncommitted")
    difference = compared(expected, found)
    shown = figures(broker.name, len(world.stream.batch), size.members, course, found, difference)
    return Trial(shown, difference, course, kills, len(compared(expected, open_to_all).twice))
