"""From surprise to score to episode: `core.episodes` and `core.alerting` for one sensor."""

from __future__ import annotations

import numpy as np

from pipeline.core.alerting import (
    ACCEPT_READINGS,
    ACCEPTED,
    CRITICAL,
    CRITICAL_ABOVE,
    OPEN,
    QUIET,
    REGROWTH,
    RELEASE,
    RELEASE_READINGS,
    UPDATE_INTERVAL,
    WARNING,
)  # fmt: skip
from pipeline.core.episodes import BLOCK_DELAY, BLOCK_READINGS, LEAST_EXCESS, WINSORED, WINSORED_MANY
from pipeline.core.model import Array
from pipeline.core.readings import FloatArray
from pipeline.core.table import BLOCKS
from pipeline.fast.compile import compiled
from pipeline.fast.state import (
    BELOW,
    BLOCK,
    EXCESS,
    HOLD,
    LENGTH,
    OWN_BLOCKS,
    OWN_EXCESS,
    OWN_USUAL,
    PEAK,
    SEVERITY,
    STATE,
    UPDATED,
    USUAL,
    Table,
)  # fmt: skip

AT_USUAL, LOG10_E = float(np.log10(2.0 * BLOCK_READINGS)), float(np.log10(np.e))
GROWN = np.float32(REGROWTH)


@compiled
def score(surprise: np.float32, level: Array) -> float:
    """-log10 of the false episodes expected per reading; `level` (columns of Level,)."""
    usual, excess = float(level[USUAL]), float(level[EXCESS])
    return AT_USUAL + (float(surprise) - usual) / excess * LOG10_E


@compiled
def learn(level: Array, blocks: Array, surprise: np.float32, learned: int, targets: int, ordered: FloatArray) -> None:
    """Take a surprise into the running block; a full one moves the sensor's calibration. `ordered` (BLOCKS,): room."""
    level[BLOCK] = max(level[BLOCK], surprise)
    if (learned + 1) % BLOCK_READINGS != 0:
        return
    block = learned // BLOCK_READINGS
    blocks[block % BLOCKS] = level[BLOCK]
    level[BLOCK] = 0
    present = 0
    for k in range(BLOCKS):
        if (block - k) % BLOCKS >= BLOCK_DELAY and np.isfinite(blocks[k]):
            place = present
            while place > 0 and ordered[place - 1] > blocks[k]:
                ordered[place] = ordered[place - 1]
                place -= 1
            ordered[place] = blocks[k]
            present += 1
    median, high, above, quantile = 0.0, 0.0, 0.0, WINSORED if targets == 1 else WINSORED_MANY
    if present > 0:
        median, high = ordered[present // 2], ordered[int(present * quantile)]
    for k in range(present // 2, present):
        above += min(ordered[k], high) - median
    mean = above / max(present - present // 2, 1) / (1 - 2 * (1 - quantile))
    own = level[OWN_BLOCKS]
    weight = present + float(own)
    level[USUAL] = (present * median + float(own * level[OWN_USUAL])) / weight
    level[EXCESS] = max((present * mean + float(own * level[OWN_EXCESS])) / weight, LEAST_EXCESS)


@compiled
def goes_on(table: Table, row: int, score: float, time: int, threshold: float) -> bool:
    """Whether the episode stays what it is: nothing opens, grows worse, returns or is accepted at this score."""
    state, high = table.counts[row, STATE], score >= threshold
    if state == QUIET:
        return bool(not high or table.counts[row, HOLD] > 1)
    if state == ACCEPTED:
        return not high or score <= float(GROWN * table.level[row, PEAK])
    below = table.counts[row, BELOW] + 1 if score < threshold - RELEASE else 0
    if below >= RELEASE_READINGS or table.counts[row, LENGTH] + 1 >= ACCEPT_READINGS:
        return False
    peak = max(float(table.level[row, PEAK]), score)
    severity = CRITICAL if peak >= threshold + CRITICAL_ABOVE else WARNING
    known, due = table.counts[row, SEVERITY], time - table.clock[row, UPDATED] >= UPDATE_INTERVAL
    return bool(severity <= known or not due)


@compiled
def move(table: Table, row: int, score: float, threshold: float) -> None:
    """Move an episode that goes on by one reading; one that was accepted ends unsaid."""
    count = table.counts[row]
    count[HOLD] = max(count[HOLD] - 1, 0)
    count[BELOW] = count[BELOW] + 1 if score < threshold - RELEASE else 0
    count[LENGTH] += 1
    if count[STATE] == OPEN:
        table.level[row, PEAK] = max(float(table.level[row, PEAK]), score)
    elif count[STATE] == ACCEPTED and count[BELOW] >= RELEASE_READINGS:
        count[STATE] = QUIET
