"""`Detector.step` in processor time, beside the bare LSTM step, the product in it, and what others need a reading."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.figures import Beside, Figure, Goal, Measured, processor_us
from benchmarks.fleets import NUMPY, Fleet, Form, kernel, running
from benchmarks.parts import apart
from pipeline.core.detector import Detector
from pipeline.core.lstm import Forecaster, features
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.table import row_bytes

READINGS = 40_000  # of a repeat, where batches are large
THIN = 400  # where each is one reading
CATCH_UP = 4096
MICRO = "µs/reading"
STEP, SMALL, EIGHT = Goal(3), Goal(4), Goal(7)
OVER_LSTM = Goal(6)
ALONE, CAUGHT_UP = Goal(12), Goal(3)
MANY, MANY_GB = Goal(1.6), Goal(6)
BYTES, BYTES_BEYOND = Goal(4500), Goal(2500)
OVER_RIVER = Goal(50, at_most=False)


class Large(NamedTuple):
    """What a large fleet costs, measured in a process of its own."""

    cost: Measured
    few: Measured  # the same batch of a usual fleet
    sensor_bytes: float
    peak_gb: float


def measure(asked: Asked) -> Iterator[Figure]:
    """The cheap ones first."""
    bare, product = ceilings(running(1, 1, asked.hidden)[0].model, asked)
    yield Figure.of("bare LSTM step, 4096 rows", bare, MICRO, ceiling=Beside("its product (GEMM)", product.value))
    lstm = Beside("bare LSTM step", bare.value)
    fleet, detector = running(asked.sensors, 1, asked.hidden)
    river = peers.half_space_trees(fleet, asked.repeats)
    tree = None if river is None else Beside("River HalfSpaceTrees", river.value)
    for batch, goal in ((asked.batch, STEP), (256, SMALL)):
        cost = stepped(fleet, detector, batch, asked.repeats)
        yield Figure.of(f"Detector.step, batch {batch}", cost, MICRO, goal, lstm, tree)
        over = cost.times(1 / bare.value)
        yield Figure.of(f"Detector.step, batch {batch}, over the bare LSTM step", over, "x", OVER_LSTM)
        if batch == asked.batch:
            yield _over_river(cost, river)
    predict = peers.predict_per_window(asked.hidden, asked.repeats)
    yield from thin(asked, NUMPY, lstm, Beside("Keras model.predict of the window", predict.value))
    compiled, why = kernel()
    if compiled is None:
        for name, goal in ((f"{_alone('kernel')}", ALONE), (f"{_caught_up('kernel')}", CAUGHT_UP)):
            yield Figure.missing(name, MICRO, goal, why)
    else:
        yield from thin(asked, compiled, lstm, Beside("Keras model.predict of the window", predict.value))
        other, at_work = running(asked.sensors, 1, asked.hidden, compiled.detector(fleet.model))
        for batch, goal in ((asked.batch, STEP), (256, SMALL)):
            cost = stepped(other, at_work, batch, asked.repeats)
            yield Figure.of(f"Detector.step, batch {batch}, kernel", cost, MICRO, goal, lstm, tree)
            over = cost.times(1 / bare.value)
            yield Figure.of(f"Detector.step, batch {batch}, kernel, over the bare LSTM step", over, "x", OVER_LSTM)
    model = running(1, asked.channels, asked.hidden)[0].model
    bare, _ = ceilings(model, asked)
    for form in (NUMPY,) if compiled is None else (NUMPY, compiled):
        several, at_work = running(asked.sensors, asked.channels, asked.hidden, form.detector(model))
        cost = stepped(several, at_work, asked.batch, asked.repeats)
        name = f"Detector.step, {asked.channels} channels, batch {asked.batch}" + ("" if form is NUMPY else ", kernel")
        yield Figure.of(name, cost, MICRO, EIGHT, Beside("bare LSTM step", bare.value))


def memory(asked: Asked) -> Iterator[Figure]:
    """A large fleet, and the bytes of a sensor."""
    large = apart(_large, asked, NUMPY)
    yield from _many(asked, large, "")
    compiled, _ = kernel()
    if compiled is not None:
        yield from _many(asked, apart(_large, asked, compiled), ", kernel")
    remark = "" if asked.many == Asked().many else f"of {asked.many:,} sensors"
    yield Figure(f"{asked.many:,} sensors, whole process at its peak", large.peak_gb, "GB", goal=MANY_GB, remark=remark)
    one, several = (row_bytes(running(1, channels, asked.hidden)[0].model) for channels in (1, asked.channels))
    state = Beside("arrays of its row", one)
    yield Figure("bytes a sensor, one channel, in the process", large.sensor_bytes, "B", goal=BYTES, ceiling=state)
    beyond = (several - one) / max(asked.channels - 1, 1)
    yield Figure("bytes of state a channel beyond the first", beyond, "B", goal=BYTES_BEYOND)


def ceilings(served: Model, asked: Asked) -> tuple[Measured, Measured]:
    """The recurrent step alone, and the matrix product in it alone, µs a row of 4096."""
    rows, forecaster = 4096, Forecaster(served.network)
    x = np.random.default_rng(0).standard_normal((rows, len(served.channels)))
    inputs, which = features(x, x), np.zeros(rows, np.int32)
    state = np.zeros((rows, forecaster.state_size), np.float32)
    (layer,) = served.network.layers
    matrix = np.concatenate([layer.kernel[0], layer.recurrent[0]])
    told, out = np.ones((rows, len(matrix)), np.float32), np.empty((rows, matrix.shape[1]), np.float32)
    works = partial(forecaster.step, state, inputs, which), partial(np.matmul, told, matrix, out)
    step, product = (processor_us(partial(_often, work), 16 * rows, asked.repeats) for work in works)
    return step, product


def stepped(fleet: Fleet, detector: Detector, batch: int, repeats: int, among: int = 0) -> Measured:
    """Batches of distinct sensors, one after the other; of a large fleet those of some sensors drawn by lot."""
    sensors, batch = len(fleet.names), min(batch, len(fleet.names))
    lots = np.random.default_rng(0).permutation(sensors)[: sensors // among * among if among else sensors]
    parts = iter(lots.reshape(-1, among) if among else [np.arange(sensors)] * (repeats + 1))

    def cut() -> list[ReadingBatch]:
        """Each sensor's readings are one interval apart, so that none has a gap."""
        order, batches = next(parts), []
        whole = order[: len(order) // batch * batch].reshape(-1, batch).tolist()
        for _ in range(1 if among else -(-READINGS // (len(whole) * batch))):
            fleet.tick()
            batches += [fleet.row(rows) for rows in whole]
        return batches

    warm = cut()
    return timed(detector, [cut() for _ in range(repeats)], warm)


def thin(asked: Asked, form: Form, lstm: Beside, peer: Beside) -> Iterator[Figure]:
    """Lone readings, and one sensor's backlog; a goal is set for the compiled form."""
    model = running(1, 1, asked.hidden)[0].model
    fleet, detector = running(asked.sensors, 1, asked.hidden, form.detector(model))
    goals = (ALONE, CAUGHT_UP) if form is not NUMPY else (None, None)
    lone = []
    for _ in range(asked.repeats + 1):
        fleet.tick()
        lone.append([fleet.row([sensor]) for sensor in range(min(THIN, asked.sensors))])
    yield Figure.of(_alone(form.name), timed(detector, lone[1:], lone[0]), MICRO, goals[0], lstm, peer)
    backlogs = [[fleet.catch_up(i, CATCH_UP)] for i in range(asked.repeats + 1)]
    yield Figure.of(_caught_up(form.name), timed(detector, backlogs[1:], backlogs[0]), MICRO, goals[1], lstm)


def timed(detector: Detector, repeats: list[list[ReadingBatch]], warm: list[ReadingBatch]) -> Measured:
    """µs of processor time a reading, over each list of batches in turn."""
    for batch in warm:
        detector.step(batch)
    costs = []
    for batches in repeats:
        readings = sum(map(len, batches))
        costs.append(processor_us(partial(_through, detector, batches), readings, 1).value)
    return Measured.of(costs)


def _through(detector: Detector, batches: Sequence[ReadingBatch]) -> None:
    for batch in batches:
        detector.step(batch)


def _often(work: Callable[[], object]) -> None:
    for _ in range(16):
        work()


def _many(asked: Asked, large: Large, form: str) -> Iterator[Figure]:
    name = f"{asked.many:,} sensors, batch {asked.batch}{form}"
    few = Beside(f"{asked.sensors:,} sensors", large.few.value)
    yield Figure.of(name, large.cost, MICRO, ceiling=few)
    times = large.cost.times(1 / large.few.value)
    yield Figure.of(f"{name}, over {asked.sensors:,}", times, "x", MANY)


def _large(asked: Asked, form: Form) -> Large:
    model = running(1, 1, asked.hidden)[0].model
    usual = stepped(*running(asked.sensors, 1, asked.hidden, form.detector(model)), asked.batch, asked.repeats)
    before = _resident_bytes()
    fleet, detector = running(asked.many, 1, asked.hidden, form.detector(model))
    taken = (_resident_bytes() - before) / asked.many
    cost = stepped(fleet, detector, asked.batch, asked.repeats, among=READINGS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Large(cost, usual, taken, peak / 1e9)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _over_river(cost: Measured, river: Measured | None) -> Figure:
    name = "River HalfSpaceTrees, same readings, over Detector.step"
    if river is None:
        return Figure.missing(name, "x", OVER_RIVER, "river is not installed; it is in the group `bench`")
    return Figure(name, river.value / cost.value, "x", max(cost.spread, river.spread), OVER_RIVER)


def _alone(form: str) -> str:
    return f"Detector.step, batch 1, {form}"


def _caught_up(form: str) -> str:
    return f"one sensor's backlog of {CATCH_UP}, {form}"
