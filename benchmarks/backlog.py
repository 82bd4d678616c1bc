"""What `foreshock replay` does with a folder of files, beside reading them and the bare LSTM steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.asked import Asked
from benchmarks.figures import Beside, Figure, Goal, processor_us
from benchmarks.fleets import NUMPY, Fleet, Form, kernel, known
from pipeline.adapters import files
from pipeline.core.events import Rules
from pipeline.core.lstm import Forecaster, features
from pipeline.core.model import Model
from pipeline.replay import Replay, replay
from tests.models import INTERVAL, START

SERIES, ROWS = 58, 4000
RATE = Goal(100_000, at_most=False)
PER_SECOND = "rows/s"


def measure(asked: Asked) -> Iterator[Figure]:
    """Rows a second of processor time: files in, scores of every row out."""
    model, rows = known(SERIES, 1, asked.hidden), SERIES * ROWS
    compiled, _ = kernel()
    with tempfile.TemporaryDirectory() as root:
        data, out = Path(root, "data"), Path(root, "out")
        _write(data, model)

        def alone(form: Form) -> Replay:
            return replay(series, {model.group: model}, Rules(), detector_of=form.detector)

        def command(form: Form) -> None:
            read = files.read(data)
            replay(read, {model.group: model}, Rules(), detector_of=form.detector).write(out, str(Rules().budget))

        series = files.read(data)
        costs = [
            (
                form,
                processor_us(partial(command, form), rows, asked.repeats),
                processor_us(partial(alone, form), rows, asked.repeats),
            )
            for form in ((NUMPY,) if compiled is None else (NUMPY, compiled))
        ]
    steps = processor_us(partial(_steps, model), rows, 1)
    ceiling = Beside("bare LSTM steps of 58 rows", 1e6 / steps.value)
    name = f"replay of {SERIES} series of {ROWS:,} rows"
    for form, whole, part in costs:
        of = name if form is NUMPY else f"{name}, kernel"
        yield Figure.of(of, whole.inverse.times(1e6), PER_SECOND, RATE, ceiling, remark="files in, scores out")
        yield Figure.of(f"{of}, without files", part.inverse.times(1e6), PER_SECOND, ceiling=ceiling)


def _write(folder: Path, model: Model) -> None:
    folder.mkdir()
    fleet = Fleet(model, tuple(f"s{i}" for i in range(SERIES)))
    values = np.stack([replace(fleet, clock=row).values(range(SERIES))[:, 0] for row in range(ROWS)])
    times = (START + np.arange(ROWS) * INTERVAL) // 1000
    for sensor, name in enumerate(fleet.names):
        lines = [f"{time},{value:.6f}" for time, value in zip(times.tolist(), values[:, sensor].tolist(), strict=True)]
        (folder / f"{name}.csv").write_text("timestamp,c0\n" + "\n".join(lines) + "\n")


def _steps(model: Model) -> None:
    forecaster = Forecaster(model.network)
    x = np.random.default_rng(0).standard_normal((SERIES, 1))
    inputs, which = features(x, x), np.zeros(SERIES, np.int32)
    state = np.zeros((SERIES, forecaster.state_size), np.float32)
    for _ in range(ROWS):
        state, _ = forecaster.step(state, inputs, which)
