"""History to messages: readings from files, as a gateway would send them, at a steady rate."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from pipeline.adapters.files import Series, iter_batches
from pipeline.codecs import CONTENT_TYPE, JSON, JSON_BATCHES, MSGPACK_BATCHES
from pipeline.codecs.batch_json import JsonBatches
from pipeline.codecs.batch_msgpack import MsgpackBatches
from pipeline.codecs.keys import partition_of
from pipeline.core.names import coded
from pipeline.core.readings import Reading, ReadingBatch

Format = Literal["json", "batch-json", "batch-msgpack"]
BATCHES: Mapping[str, JsonBatches | MsgpackBatches] = {"batch-json": JSON_BATCHES, "batch-msgpack": MSGPACK_BATCHES}
BLOCK_READINGS = 4096  # taken from the files at once


class Flush(NamedTuple):
    """One message. Where a sensor is its key, the key chooses the partition that is said here."""

    partition: int
    key: bytes | None
    value: bytes
    content_type: str
    readings: int

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """What tells the service how to read it."""
        return [(CONTENT_TYPE, self.content_type.encode())]


def format_of(word: str) -> Format:
    """The format by its name; ValueError where there is none."""
    for form in get_args(Format):
        if word == form:
            return cast("Format", form)
    raise ValueError(f"{word!r} is no format; there are {', '.join(get_args(Format))}")


def messages(series: Sequence[Series], partitions: int, form: Format, size: int = 1) -> Iterator[Flush]:
    """Row 0 of every sensor, then row 1 of every sensor; `size` readings a message where the format holds several.

    A message holds sensors of one partition only, the one that their names as keys choose.
    """
    places = {s.sensor: partition_of(s.sensor, partitions) for s in series}
    alike: dict[tuple[str, ...], list[Series]] = defaultdict(list)
    for one in series:
        alike[one.channels].append(one)
    streams = [_of_kind(members, channels, places, form, size) for channels, members in alike.items()]
    return (flush for flush in chain.from_iterable(zip_longest(*streams)) if flush is not None)


def paced(
    flushes: Iterator[Flush],
    send: Callable[[Flush], None],
    rate: float | None,
    on_readings: Callable[[int], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Send them, at most `rate` readings a second; how many readings there were, in how many messages."""
    began, readings, sent = clock(), 0, 0
    for flush in flushes:
        if rate is not None and (early := began + readings / rate - clock()) > 0:
            sleep(early)
        send(flush)
        readings, sent = readings + flush.readings, sent + 1
        on_readings(readings)
    return readings, sent


def _of_kind(
    members: Sequence[Series], channels: tuple[str, ...], places: Mapping[str, int], form: Format, size: int
) -> Iterator[Flush]:
    blocks = iter_batches(members, channels, BLOCK_READINGS)
    if form == "json":
        for block in blocks:
            yield from _single(block, channels, places)
        return
    waiting: dict[int, list[ReadingBatch]] = defaultdict(list)
    for block in blocks:
        where = np.array([places[sensor] for sensor in block.sensors])
        for partition in np.flatnonzero(np.bincount(where)).tolist():
            parts = [*waiting.pop(partition, []), block.take(np.flatnonzero(where == partition))]
            while sum(map(len, parts)) >= size:
                full, parts = _cut(parts, size)
                yield _batch(full, channels, partition, form)
            waiting[partition] = parts
    for partition, parts in sorted(waiting.items()):
        if any(map(len, parts)):
            yield _batch(parts, channels, partition, form)


def _cut(parts: Sequence[ReadingBatch], size: int) -> tuple[list[ReadingBatch], list[ReadingBatch]]:
    """The first `size` readings, and what is left."""
    full: list[ReadingBatch] = []
    for i, part in enumerate(parts):
        missing = size - sum(map(len, full))
        full.append(part.take(slice(0, missing)))
        if len(part) >= missing:
            return full, [part.take(slice(missing, None)), *parts[i + 1 :]]
    raise AssertionError(f"fewer than {size} readings")


def _single(block: ReadingBatch, channels: tuple[str, ...], places: Mapping[str, int]) -> Iterator[Flush]:
    for sensor, at, values in zip(block.sensors, block.times.tolist(), block.values.tolist(), strict=True):
        reading = Reading(sensor, at, dict(zip(channels, values, strict=True)))
        yield Flush(places[sensor], sensor.encode(), JSON.encode(reading), JSON.content_type, 1)


def _batch(parts: Sequence[ReadingBatch], channels: tuple[str, ...], partition: int, form: Format) -> Flush:
    sensors = [sensor for part in parts for sensor in coded(part.sensors)]
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.values for part in parts])
    codec = BATCHES[form]
    value = codec.encode(sensors, times, dict(zip(channels, values.T, strict=True)))
    key = sensors[0].encode() if len(set(sensors)) == 1 else None
    return Flush(partition, key, value, codec.content_type, len(times))
