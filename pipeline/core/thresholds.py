"""The one knob: a false-alarm budget in the operator's words, as a threshold on the score."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import DAY, SECOND, FloatArray

PERIODS = {"minute": 60 * SECOND, "hour": 3600 * SECOND, "day": DAY, "week": 7 * DAY, "month": 30 * DAY}
FORM = re.compile(r"(?P<alarms>\d{1,9}(\.\d{1,9})?)/(?P<per>[a-z]+|\d{1,12})/(?P<scope>sensor|fleet)", re.ASCII)
TRUSTED = 6.0  # alarms: what the calibration's promise weighs against the alarms that came
MOST_RAISED = 1.0  # decades
EXAMPLES = "20/day/fleet, 1/week/sensor or 1/10000/sensor (readings)"


@dataclass(frozen=True, slots=True)
class Budget:
    """How many false forecast alarms are bearable, per period or number of readings, of a sensor or the fleet."""

    alarms: float
    period: int | None  # µs; None where the budget counts readings
    readings: int | None
    scope: Literal["sensor", "fleet"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `20/day/fleet`, `1/week/sensor` or `1/10000/sensor`; ValueError says what is wrong."""
        found = FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not a budget; examples: {EXAMPLES}")
        alarms, per = float(found["alarms"]), found["per"]
        if alarms == 0 or not per.strip("0"):
            raise ValueError(f"{text!r} allows no alarm at all, which no threshold can keep; examples: {EXAMPLES}")
        scope: Literal["sensor", "fleet"] = "sensor" if found["scope"] == "sensor" else "fleet"
        if per.isdigit():
            return cls(alarms, None, int(per), scope)
        if per not in PERIODS:
            raise ValueError(f"{per!r} is not a period; use {', '.join(PERIODS)} or a number of readings")
        return cls(alarms, PERIODS[per], None, scope)

    def per_reading(self, interval: int, sensors: int) -> float:
        """False alarms allowed per reading of one sensor, sampled every `interval` µs, in a fleet of `sensors`."""
        if self.period is None:
            assert self.readings is not None
            rate = self.alarms / self.readings
        else:
            rate = self.alarms * interval / self.period
        return rate / max(sensors, 1) if self.scope == "fleet" else rate

    def threshold(self, interval: int, sensors: int) -> float:
        """The score at which that many episodes are expected: -log10 of the budget per reading, at least 1."""
        return max(-math.log10(self.per_reading(interval, sensors)), 1.0)


def raised(alarms: npt.NDArray[np.int32], allowed: FloatArray) -> FloatArray:
    """Decades by which sensors that have alarmed more often than the budget allowed are judged more strictly, (n,).

    The rate at which a score is really reached is estimated as the mean of a Gamma distribution that begins at the
    calibration's promise (Gelman et al., "Bayesian Data Analysis", 3rd ed., 2013, section 2.6).
    """
    overdrawn: FloatArray = np.log10(np.maximum((alarms + TRUSTED) / (allowed + TRUSTED), 1.0))
    return np.minimum(overdrawn, MOST_RAISED)
