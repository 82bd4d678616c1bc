"""What was found and what was cried in vain: alerts against the faults that are known to have happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.demo.control import Opening
from pipeline.demo.faults import WINDOW_ROWS, Fault, FaultKind


@dataclass(frozen=True, slots=True)
class Judgement:
    """One detector's alerts on the faults of a stream."""

    delays: Mapping[Fault, int | None]  # readings from a fault's start to the opening of its alert; None: missed
    false_alarms: int
    readings: int

    @property
    def injected(self) -> int:
        """Faults there were."""
        return len(self.delays)

    @property
    def found(self) -> int:
        """Faults an alert was opened for."""
        return sum(delay is not None for delay in self.delays.values())

    @property
    def delay_readings(self) -> float | None:
        """Median over the faults found."""
        delays = [delay for delay in self.delays.values() if delay is not None]
        return float(median(delays)) if delays else None

    @property
    def false_alarms_per_10k(self) -> float:
        """False alarms in 10,000 readings."""
        return 10_000 * self.false_alarms / self.readings if self.readings else 0.0

    def of(self, kind: FaultKind) -> Judgement:
        """The same on the faults of one kind; a false alarm belongs to no kind."""
        return Judgement({f: delay for f, delay in self.delays.items() if f.kind is kind}, 0, self.readings)


def judge(faults: Sequence[Fault], openings: Iterable[Opening], readings: int) -> Judgement:
    """A fault is found by the first alert on its sensor that opens from its start to 100 readings after its end.

    What else opens while it lasts belongs to it; what else opens after its end, as on recovery, is a false alarm.
    """
    delays: dict[Fault, int | None] = dict.fromkeys(faults)
    false_alarms = 0
    for opening in sorted(openings):
        fault = next((f for f in faults if _in_window(f, opening)), None)
        if fault is None:
            false_alarms += 1
        elif delays[fault] is None:
            delays[fault] = opening.row - fault.first_row
        elif opening.row > fault.last_row:
            false_alarms += 1
    return Judgement(delays, false_alarms, readings)


def _in_window(fault: Fault, opening: Opening) -> bool:
    return fault.sensor == opening.sensor and fault.first_row <= opening.row <= fault.last_row + WINDOW_ROWS


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a demo: how it ran, what the service found, what the control found on the same readings."""

    broker: str
    seconds: float
    latency_p50_ms: float  # from a reading produced to its alert visible
    latency_p99_ms: float
    service: Judgement
    control: Judgement

    def as_json(self) -> dict[str, object]:
        """The fields of `foreshock demo --json`."""
        return {
            "broker": self.broker,
            "readings": self.service.readings,
            "seconds": round(self.seconds, 1),
            "latency_ms": {"p50": round(self.latency_p50_ms, 1), "p99": round(self.latency_p99_ms, 1)},
            "faults": {
                "injected": self.service.injected,
                "found": self.service.found,
                "delay_readings": self.service.delay_readings,
            },
            "false_alarms": self.service.false_alarms,
            "false_alarms_per_10k": round(self.service.false_alarms_per_10k, 2),
            "control": {
                "found": self.control.found,
                "false_alarms_per_10k": round(self.control.false_alarms_per_10k, 2),
            },
        }
