"""`Detector.step` in processor time, beside the bare LSTM step, the product in it, and what others need a reading."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import peers
from benchmarks.asked import Asked
from benchmarks.figures import Beside, Figure, Goal, Measured, number, processor_us
from benchmarks.fleets import NUMPY, Fleet, Form, kernel, running
from benchmarks.parts import apart
from pipeline.core.detector import Detector
from pipeline.core.lstm import Forecaster, features
from pipeline.core.model import Model
from pipeline.core.readings import IntArray, ReadingBatch
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


class Ordered(NamedTuple):
    """The same batches of sensors in two orders."""

    by_lot: Measured  # as rows lie that were restored: by name, not as readings come
    in_rows: Measured  # as rows lie of sensors that have sent in turn ever since they were first seen


class Large(NamedTuple):
    """What a large fleet costs, measured in a process of its own."""

    cost: Ordered
    few: Ordered  # the same batch of a usual fleet
    gather: Measured  # to copy rows of as many bytes out of as large a table, by lot
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


def stepped(fleet: Fleet, detector: Detector, batch: int, repeats: int, order: IntArray | None = None) -> Measured:
    """Batches of distinct sensors, one after the other, in this order or that of their rows, again and again."""
    order = np.arange(len(fleet.names)) if order is None else order
    batch = min(batch, len(order))
    whole = order[: len(order) // batch * batch].reshape(-1, batch).tolist()

    def cut() -> list[ReadingBatch]:
        """Each sensor's readings are one interval apart, so that none has a gap."""
        batches = []
        for _ in range(-(-READINGS // (len(whole) * batch))):
            fleet.tick()
            batches += [fleet.row(rows) for rows in whole]
        return batches

    warm = cut()
    return timed_each(detector, [cut() for _ in range(repeats)], warm)


def crossed(fleet: Fleet, detector: Detector, batch: int, repeats: int) -> Ordered:
    """Part of a large fleet at one instant: no row is touched twice, and no sensor has missed a reading."""
    half = len(fleet.names) // 2
    part = min(READINGS, half // (repeats + 1)) // batch * batch
    if not part:
        raise ValueError(f"--many {len(fleet.names)}: {repeats} repeats take {2 * (repeats + 1) * batch} at least")
    fleet.tick()
    costs = []
    for order in (np.random.default_rng(0).permutation(half), half + np.arange(half)):
        parts = order[: part * (repeats + 1)].reshape(repeats + 1, -1, batch).tolist()
        warm, *batches = [[fleet.row(rows) for rows in part] for part in parts]
        costs.append(timed_each(detector, batches, warm))
    return Ordered(*costs)


def gathered(rows: int, row_bytes: int, batch: int, repeats: int) -> Measured:
    """µs a row to copy rows drawn by lot out of a table of one array: what memory asks for, whatever is computed."""
    table, out = np.ones((rows, row_bytes // 8), np.int64), np.empty((batch, row_bytes // 8), np.int64)
    lots = np.random.default_rng(1).permutation(rows)[: rows // batch * batch].reshape(-1, batch)
    few = max(1, min(READINGS // batch, len(lots) // repeats))
    parts = [lots[i * few : (i + 1) * few] for i in range(repeats)]

    def copied(part: IntArray) -> None:
        for at in part:
            table.take(at, 0, out, "clip")  # the other modes copy twice

    return Measured.of([processor_us(partial(copied, part), part.size, 1).value for part in parts])


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
    """µs of processor time a reading, over each list of thin batches in turn."""
    for batch in warm:
        detector.step(batch)
    costs = []
    for batches in repeats:
        readings = sum(map(len, batches))
        costs.append(processor_us(partial(_through, detector, batches), readings, 1).value)
    return Measured.of(costs)


def timed_each(detector: Detector, repeats: list[list[ReadingBatch]], warm: list[ReadingBatch]) -> Measured:
    """The same of batches that are large enough to be timed one by one, as a codec has just left them."""
    for batch in warm:
        detector.step(batch)
    costs = []
    for batches in repeats:
        seconds = 0.0
        for batch in map(_just_decoded, batches):
            before = time.process_time()
            detector.step(batch)
            seconds += time.process_time() - before
        costs.append(seconds / sum(map(len, batches)) * 1e6)
    return Measured.of(costs)


def _through(detector: Detector, batches: Sequence[ReadingBatch]) -> None:
    for batch in batches:
        detector.step(batch)


def _just_decoded(batch: ReadingBatch) -> ReadingBatch:
    """The batch as a codec leaves it: its names are new strings that nobody has hashed, and memory has them at hand."""
    return replace(batch, sensors=" ".join(batch.sensors).split(" "))


def _often(work: Callable[[], object]) -> None:
    for _ in range(16):
        work()


def _many(asked: Asked, large: Large, form: str) -> Iterator[Figure]:
    gather = Beside("bare gather of such rows", large.gather.value)
    for how, cost, few in zip(("by lot", "in the rows' order"), large.cost, large.few, strict=True):
        name = f"{asked.many:,} sensors, batch {asked.batch}, {how}{form}"
        yield Figure.of(name, cost, MICRO, ceiling=gather)
        times = Measured(cost.value / few.value, max(cost.spread, few.spread))
        yield Figure.of(f"{name}, over {asked.sensors:,}", times, "x", MANY, remark=f"of {number(few.value)} µs")


def _large(asked: Asked, form: Form) -> Large:
    model = running(1, 1, asked.hidden)[0].model
    usual, at_work = running(asked.sensors, 1, asked.hidden, form.detector(model))
    lot = np.random.default_rng(0).permutation(asked.sensors)
    few = Ordered(*(stepped(usual, at_work, asked.batch, asked.repeats, order) for order in (lot, None)))
    before = _resident_bytes()
    fleet, detector = running(asked.many, 1, asked.hidden, form.detector(model))
    taken = (_resident_bytes() - before) / asked.many
    cost = crossed(fleet, detector, asked.batch, asked.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    del fleet, detector  # what follows takes as much again
    gather = gathered(asked.many, row_bytes(model), asked.batch, asked.repeats)
    return Large(cost, few, gather, taken, peak / 1e9)


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
