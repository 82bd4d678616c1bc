"""The slope that `make soak` finds, and when it calls it flat."""

from __future__ import annotations

import numpy as np
import pytest

from tests.soak import soaked

SECONDS = np.arange(0.0, 600.0)
NOISE = np.random.default_rng(0).normal(0, 0.3, 600)


def test_what_fills_while_it_is_warming_up_is_no_slope() -> None:
    memory = 150 + 40 * (1 - np.exp(-SECONDS / 10)) + NOISE
    seen = soaked(np.stack([SECONDS, memory], axis=1), 1)
    assert abs(seen.slope) < 4 * seen.spread
    assert seen.is_flat
    assert seen.resident == pytest.approx(190, abs=1)


@pytest.mark.parametrize("growth", [1.0, 20.0])
def test_a_leak_of_a_mebibyte_a_minute_is_seen(growth: float) -> None:
    memory = 150 + growth * SECONDS / 60 + NOISE
    seen = soaked(np.stack([SECONDS, memory], axis=1), 1)
    assert seen.slope == pytest.approx(1024 * growth, rel=0.05)
    assert not seen.is_flat
