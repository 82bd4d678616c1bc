"""The plan of kills, and the comparison that they end in: each way to differ is found and counted once."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Severity, State
from pipeline.testing import POINTS
from tests.chaos.members import Course, Killed, Look
from tests.chaos.plan import ANY_MOMENT, RESTORING, plan
from tests.chaos.verdict import Said, compared, examples, open_at, recovery_seconds

FIRST = Alert("a", 1, State.FIRING, Kind.STUCK, Severity.WARNING, "s0", 0, 9, Evidence(1, 5, 5), ModelRef("g", "1", ""))
LAST = replace(FIRST, revision=2, state=State.RESOLVED, end=20)


def said(alert: Alert, time: float = 0.0) -> Said:
    return Said((alert.alert_id, alert.revision), alert, time, 1, 5)


def looks(*offsets: int) -> list[Look]:
    """One a second, of partition 1; partition 2 stands still."""
    return [Look(float(i), i + 0.1, {1: at, 2: 7}) for i, at in enumerate(offsets)]


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_kills_every_member_at_every_point_and_as_often_at_any_moment(seed: int) -> None:
    kills = plan(104, 3, 4.5, 8.0, seed)
    at = Counter(kill.point for kill in kills)
    assert at[ANY_MOMENT] == len(kills) / 2
    assert min(at[point] for point in POINTS) >= 7
    assert {kill.member for kill in kills} == {0, 1, 2}


def test_a_kill_while_restoring_follows_another_of_the_same_member_that_is_started_again_at_once() -> None:
    kills = plan(104, 3, 4.5, 8.0, 0)
    pairs = [(one, then) for one, then in itertools.pairwise(kills) if then.point == RESTORING]
    assert len(pairs) >= 7
    assert all((one.member, one.away, then.pause) == (then.member, 0.0, 0.0) for one, then in pairs)


def test_some_kills_hit_two_members_at_once_and_some_members_stay_away() -> None:
    kills = plan(104, 3, 4.5, 8.0, 0)
    together = [(a, b) for a, b in itertools.pairwise(kills) if b.pause == 0 and b.point != RESTORING]
    assert len(together) >= 10
    assert all(a.member != b.member for a, b in together)
    assert sum(kill.away > 0 for kill in kills) >= 10


def test_what_is_the_same_does_not_differ() -> None:
    same = compared([said(FIRST), said(LAST)], [said(FIRST, 3.0), said(LAST, 4.0)])
    assert (same.missing, same.spurious, same.twice) == ([], [], [])


def test_what_was_not_said_is_missing_and_what_only_was_said_under_kills_is_spurious() -> None:
    difference = compared([said(FIRST)], [said(LAST)])
    assert (difference.missing, difference.spurious, difference.twice) == ([said(FIRST)], [said(LAST)], [])


def test_the_same_alert_in_other_words_is_missing_and_spurious() -> None:
    other = said(replace(FIRST, last=8))
    difference = compared([said(FIRST)], [other])
    assert (difference.missing, difference.spurious, difference.twice) == ([said(FIRST)], [other], [])


def test_what_is_said_again_in_whatever_words_is_a_duplicate() -> None:
    again = [said(FIRST, 1.0), said(replace(FIRST, last=8), 2.0)]
    difference = compared([said(FIRST)], [said(FIRST), *again])
    assert (difference.missing, difference.spurious, difference.twice) == ([], [], again)


def test_an_episode_is_open_at_a_kill_between_its_opening_and_its_end_of_the_member_that_followed_it() -> None:
    episode = [said(FIRST, 10.0), said(LAST, 20.0)]

    def killed(time: float, *partitions: int) -> list[Killed]:
        return [Killed(0, 0, ANY_MOMENT, time, frozenset(partitions))]

    assert open_at(episode, killed(15.0, 1, 3)) == {"a"}
    assert open_at(episode, killed(15.0, 2)) == set()
    assert open_at(episode, killed(9.0, 1)) == open_at(episode, killed(20.0, 1)) == set()
    assert open_at(episode[:1], killed(99.0, 1)) == {"a"}


def test_a_member_is_back_at_work_once_each_of_its_partitions_is_committed_beyond_what_it_was_after_the_kill() -> None:
    killed = Killed(0, 0, ANY_MOMENT, 1.5, {1})
    course = Course([killed], looks(10, 11, 12, 12, 13))
    assert course.recovery_seconds(killed) == pytest.approx(4.1 - 1.5)
    assert course.recovery_seconds(killed._replace(partitions=frozenset())) is None
    with pytest.raises(AssertionError, match="never committed again"):
        course.recovery_seconds(killed._replace(partitions={1, 2}))
    course.killed.append(killed._replace(point="committed", time=0.5))
    assert recovery_seconds(course, "committed") == [pytest.approx(2.1 - 0.5)]


def test_an_example_says_what_differs_where_and_after_which_kill() -> None:
    course = Course([Killed(3, 2, "stepped", 1.5, {1})], looks(0, 0, 0, 6))
    lines = list(examples(compared([said(FIRST)], [said(replace(FIRST, last=8))]), course))
    place = "partition 1, offset 5, committed 1.6 s after kill 3 (member 2, stepped)"
    assert lines == [
        f"missing: stuck alert a of s0, revision 1, firing; {place}",
        f"spurious: stuck alert a of s0, revision 1, firing; {place}",
        "  instead of: last 9, not 8",
    ]
