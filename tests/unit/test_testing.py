"""Killing a service at a named point: every point is one that a service passes, and nothing else is wrapped."""

from __future__ import annotations

import pytest

from pipeline import testing


@pytest.mark.parametrize("point", testing.POINTS)
def test_the_kill_comes_after_so_many_passes(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    for owner, name in testing.POINTS[point]:
        monkeypatch.setattr(owner, name, lambda *args, **words: (args, words))
    killed: list[str] = []
    testing.kill_at(point, 2, lambda: killed.append(point))
    passed = getattr(*testing.POINTS[point][-1])
    assert passed(1, two=2) == ((1,), {"two": 2})
    assert killed == []
    passed()
    passed()
    assert killed == [point]


def test_a_point_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match="lunch"):
        testing.kill_at("lunch", 1)
