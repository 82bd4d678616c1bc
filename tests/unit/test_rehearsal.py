"""The detector reads histories as it would have live; what it learned, and how high its surprises rose, is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.core import episodes, scoring
from pipeline.core.detector import Detector
from pipeline.core.episodes import BLOCK_READINGS, EXCESS, USUAL, WINSORED
from pipeline.core.model import Array, Model
from pipeline.core.table import BLOCKS, TRAINED, Clock, Count
from tests import models
from tests.models import INTERVAL, START
from training.rehearsal import FEWEST_BLOCKS, Rehearsed, Stretch, rehearse, usual_episode

WINDOW = 64
LEARNED_IN_WARM_UP = 32  # the second half of the window


def stretch(sensor: str, rows: int, seed: int = 0) -> Stretch:
    """Noise around 20, a reading a minute."""
    times = START + INTERVAL * np.arange(rows, dtype=np.int64)
    return Stretch(sensor, times, 20 + np.random.default_rng(seed).standard_normal((rows, 1)))


@pytest.fixture
def surprises(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every surprise of a rehearsal of one sensor that was counted, in order."""
    counted: list[float] = []
    real = scoring.combine

    def watch(*given: Any) -> tuple[Array, Array]:
        found = real(*given)
        counted.extend(found[0][given[1].learns].tolist())
        return found

    monkeypatch.setattr(scoring, "combine", watch)
    return counted


def known(rehearsed: Rehearsed, sensor: int) -> list[float]:
    blocks = rehearsed.blocks[sensor]
    return [float(b) for b in blocks[np.isfinite(blocks)]]


def test_every_block_maximum_is_kept_though_the_detector_itself_forgets_the_oldest(surprises: list[float]) -> None:
    rows = (BLOCKS + 6) * BLOCK_READINGS + WINDOW
    [found] = rehearse(models.model(), [stretch("a", rows)]).blocks
    full = len(surprises) // BLOCK_READINGS
    expected = np.array(surprises[: full * BLOCK_READINGS]).reshape(full, BLOCK_READINGS).max(axis=1)
    assert full > BLOCKS
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_warm_up_that_fills_blocks_at_once_loses_none(surprises: list[float]) -> None:
    served = models.model(window=512)
    [found] = rehearse(served, [stretch("a", 512)]).blocks
    np.testing.assert_array_equal(found, np.array(surprises[:250], np.float32).reshape(5, 50).max(axis=1))


def test_sensors_have_as_many_blocks_as_their_own_history_filled() -> None:
    lengths = [700, WINDOW + 150, WINDOW, 40]
    found = rehearse(models.model(), [stretch(f"s{i}", rows, i) for i, rows in enumerate(lengths)])
    counted = [max(rows - LEARNED_IN_WARM_UP, 0) if rows >= WINDOW else 0 for rows in lengths]
    assert [len(known(found, i)) for i in range(4)] == [c // BLOCK_READINGS for c in counted]
    assert found.blocks.shape == (4, (700 - 32) // 50)


def test_a_sensor_s_blocks_and_tails_are_those_it_has_when_it_is_read_alone() -> None:
    stretches = [stretch("a", 600, 1), stretch("b", 350, 2), stretch("c", 500, 3)]
    together = rehearse(models.model(), stretches)
    for i, one in enumerate(stretches):
        alone = rehearse(models.model(), [one])
        assert known(together, i) == known(alone, 0)
        np.testing.assert_array_equal(together.arrays.tail[i], alone.arrays.tail[0])


def test_nothing_waits_for_its_delay_when_the_history_has_ended() -> None:
    found = rehearse(models.model(), [stretch("a", 432), stretch("b", 200)])
    assert (found.arrays.tail[..., 0] == np.array([432 - 32, 200 - 32])[:, None, None]).all()
    assert not found.arrays.pending.any()


def test_each_row_is_told_with_what_came_of_it() -> None:
    told: list[tuple[int, list[str], int]] = []
    stretches = [stretch("a", 70), stretch("b", 66, 1)]
    rehearse(
        models.model(), stretches, lambda row, batch, out: told.append((row, list(batch.sensors), len(out.scores)))
    )
    assert told == [(row, ["a", "b"][: 2 if row < 66 else 1], 2 if row < 66 else 1) for row in range(70)]


def test_what_is_learned_is_what_a_detector_learns_from_the_same_readings() -> None:
    one = stretch("s", 460)
    found, live = rehearse(models.model(), [one]), Detector(models.model())
    live.step(models.one(one.values))
    theirs = live.snapshot(0)
    for name in ("scale", "lane", "level", "known", "prototypes", "count"):
        np.testing.assert_array_equal(found.arrays[name], theirs[name], err_msg=name)
    assert (theirs["tail"][..., 0] < found.arrays.tail[..., 0]).all()  # live, some counts still wait


def test_readings_before_a_sensor_s_first_news_are_read_and_not_counted() -> None:
    one = stretch("s", 400)
    trained = models.learnt(models.model(), models.one(one.values))
    tables = {name: table.copy() for name, table in trained.sensors.arrays.items()}
    tables["clock"][:, Clock.LEARN_FROM] = one.times[220]
    tables["tail"][:] = 0
    served: Model = replace(trained, sensors=replace(trained.sensors, arrays=tables))
    found = rehearse(served, [one])
    assert found.arrays.count[0, [Count.FITTED, Count.LEARNED]].tolist() == [TRAINED, 180]
    assert (found.arrays.tail[..., 0] == 180).all()
    assert found.blocks.shape == (1, 180 // BLOCK_READINGS)


# -- what is usual in a group


def maxima(blocks: int, median: float, seed: int = 0) -> Array:
    """Block maxima of a sensor, exceeding their median by 0.3 in the mean."""
    excess = np.random.default_rng(seed).exponential(0.3, blocks) - 0.3 * np.log(2)
    found: Array = (median + excess).astype(np.float32)
    return found


def group(*sensors: Array) -> Array:
    out = np.full((len(sensors), max(map(len, sensors))), np.nan, np.float32)
    for i, blocks in enumerate(sensors):
        out[i, : len(blocks)] = blocks
    return out


def test_a_group_of_short_histories_is_like_any_other() -> None:
    short = [np.full(FEWEST_BLOCKS - 1, 9.0, np.float32)] * 40
    assert usual_episode(group(*short), WINSORED) == (USUAL, EXCESS)
    assert usual_episode(np.zeros((3, 0), np.float32), WINSORED) == (USUAL, EXCESS)


def test_what_is_usual_is_that_of_the_middle_sensor_so_that_a_wild_one_does_not_move_it() -> None:
    calm = [maxima(2000, 2.0, seed) for seed in range(5)]
    usual, excess = usual_episode(group(*calm), WINSORED)
    assert (usual, excess) == pytest.approx((2.0, 0.3), rel=0.06)
    assert usual_episode(group(*calm, maxima(2000, 500.0) * 9), WINSORED) == pytest.approx((usual, excess), rel=0.03)


@pytest.mark.parametrize("blocks", [5, 50, 500])
def test_fifty_blocks_of_the_group_weigh_as_much_as_what_is_usual_anywhere(blocks: int) -> None:
    level = np.full(blocks, 3.0, np.float32)
    usual, excess = usual_episode(level[None], WINSORED)
    share = blocks / (blocks + 50)
    assert usual == pytest.approx(share * 3.0 + (1 - share) * USUAL)
    assert excess == pytest.approx(share * episodes.LEAST_EXCESS + (1 - share) * EXCESS)


def test_a_group_may_be_taken_as_it_is() -> None:
    usual, excess = usual_episode(np.full((1, 5), 3.0, np.float32), WINSORED, anywhere=0.0)
    assert (usual, excess) == pytest.approx((3.0, episodes.LEAST_EXCESS))
