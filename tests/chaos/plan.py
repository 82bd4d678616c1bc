"""Who is killed when: half of the kills at any moment, half at the named points of the turn, one after the other."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from pipeline.testing import POINTS

ANY_MOMENT = "any moment"
RESTORING = "mid-restore"  # passed after a start only: it follows another kill of the same member
TOGETHER_EVERY = 5  # kills: two members at once
AWAY_EVERY = 4  # kills: started again only after the group has given its partitions to others
START_SECONDS = 3.0  # from a start to work, roughly


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9."""

    member: int
    point: str = ANY_MOMENT  # or one of `pipeline.testing.POINTS`
    pause: float = 0.0  # s since the kill before it, at least
    away: float = 0.0  # s until it is started again


def plan(kills: int, members: int, pause: float, away: float, seed: int) -> list[Kill]:
    """So many kills, about `pause` seconds apart; members that stay away do so for `away` seconds."""
    chance = random.Random(seed)  # noqa: S311 - when to kill is no secret
    named = list(POINTS)
    at_work = [0.0] * members  # s, when each is expected to be
    now, made = 0.0, list[Kill]()
    for i in range(kills):
        point = named[i // 2 % len(named)] if i % 2 else ANY_MOMENT
        if point == RESTORING:
            made[-1] = replace(made[-1], away=0.0)
            made.append(Kill(made[-1].member, point))
        else:
            wait = 0.0 if i % TOGETHER_EVERY == TOGETHER_EVERY - 1 else chance.uniform(0.5, 1.5) * pause
            now += wait
            member = min(range(members), key=lambda m: (max(at_work[m] - now, 0.0), chance.random()))
            made.append(Kill(member, point, wait, away if i % AWAY_EVERY == 0 else 0.0))
        at_work[made[-1].member] = now + made[-1].away + START_SECONDS
    return made
