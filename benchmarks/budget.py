"""`make budget`: false alarms on a simulated plant where nothing goes wrong, against the budget that was given.

The plant's readings follow a daily cycle, wander, wear and oscillate, but no fault is injected: whatever is raised is
false. The budget is kept where the realised number lies within half and twice the allowed one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.core.alerts import Kind, State
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.thresholds import Budget
from pipeline.demo.plant import CHUNK, Line, Plant, time_of
from pipeline.demo.producer import HISTORY_ROWS
from pipeline.demo.session import history
from training.train import TrainSettings, train


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of one budget."""

    budget: str
    readings: int
    allowed: float
    realised: int

    @property
    def ratio(self) -> float:
        """1: as promised."""
        return self.realised / self.allowed


def fleet(sensors: int, seed: int, root: Path) -> tuple[Plant, list[Model]]:
    """A plant and its models, trained on its first two days; the weights of a group are shared."""
    plant = Plant(sensors, seed)
    return plant, [t.model for t in train(history(plant), root, TrainSettings(weights="shared"))]


def realised(plant: Plant, models: Sequence[Model], rows: int, budgets: Sequence[str]) -> list[Kept]:
    """Stream `rows` rows of every sensor through a detector for each budget and group, and count what is raised."""
    false = dict.fromkeys(budgets, 0)
    with Progress(console=Console(stderr=True)) as progress:
        for line in plant.lines:
            model = next(m for m in models if set(m.channels) == set(line.names))
            detectors = {b: Detector(model, Rules(budget=Budget.parse(b))) for b in budgets}
            task = progress.add_task(f"{len(line.sensors)} x {line.kind}", total=rows)
            for batch in rounds(line, model, rows):
                for text, detector in detectors.items():
                    alerts = detector.step(batch).alerts
                    false[text] += sum(a.state is State.FIRING and a.kind is Kind.FORECAST for a in alerts)
                progress.advance(task)
    readings = rows * len(plant.sensors)
    return [
        Kept(text, readings, readings * Budget.parse(text).per_reading(models[0].interval, len(plant.sensors)), n)
        for text, n in false.items()
    ]


def rounds(line: Line, model: Model, rows: int) -> Iterator[ReadingBatch]:
    """A reading of every sensor of the line, row by row, from where its history ended."""
    order = [line.names.index(channel) for channel in model.channels]
    nothing = np.zeros(len(line.sensors), np.int64)
    for first in range(HISTORY_ROWS, HISTORY_ROWS + rows, CHUNK):
        block = line.block(first, min(CHUNK, HISTORY_ROWS + rows - first))[..., order]
        for row, values in enumerate(block, first):
            yield ReadingBatch(
                sensors=list(line.sensors),
                times=np.full(len(line.sensors), time_of(row), np.int64),
                values=values,
                usable=np.ones(len(line.sensors), np.bool_),
                partitions=nothing,
                offsets=nothing + row,
                received=nothing,
            )


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", nargs="+", default=["1/10000/sensor", "1/100000/sensor"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1, user_api="blas"):
        plant, models = fleet(options.sensors, options.seed, Path(folder))
        kept = realised(plant, models, options.rows, options.budget)
    table = Table("budget", "readings", "allowed", "realised", "ratio", "kept (0.5 to 2)")
    for one in kept:
        verdict = "yes" if 0.5 <= one.ratio <= 2 else "no"
        table.add_row(
            one.budget, f"{one.readings:,}", f"{one.allowed:,.0f}", f"{one.realised:,}", f"{one.ratio:.2f}", verdict
        )
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) | {"ratio": one.ratio} for one in kept], indent=1))


if __name__ == "__main__":
    main()
