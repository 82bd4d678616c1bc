"""Histories whose channels are apart, as the service joins them: tags under their sensor's name, parts made whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.adapters import files
from pipeline.adapters.files import Series
from pipeline.core.joining import Whole, whole
from pipeline.core.tags import Tags


def read(path: Path | str, timezone: str = "UTC", *, join: bool = False, tag: str | None = None) -> list[Series]:
    """Every sensor in files, as `files.read`; with `tag` (see `Tags`) or `join`, joined. ValueError for the tag."""
    tags = Tags(tag) if tag else None
    series = files.read(path, timezone)
    return joined(series, tags) if join or tags else series


def joined(series: Sequence[Series], tags: Tags | None = None) -> list[Series]:
    """The sensors that these are the channels of; a sensor of one channel is a tag where its name is one."""
    parts: dict[str, list[Series]] = {}
    for one in series:
        place = tags.place(one.sensor) if tags and len(one.channels) == 1 else None
        name, channels = (place[0], (place[1],)) if place else (one.sensor, one.channels)
        parts.setdefault(name, []).append(replace(one, sensor=name, channels=channels))
    return list(map(_joined, parts.values()))


def _joined(parts: list[Series]) -> Series:
    channels = tuple(dict.fromkeys(channel for part in parts for channel in part.channels))
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.columns(channels) for part in parts])
    if len(parts) > 1:
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
    made = whole(Whole(times, values, np.ones(len(times), np.bool_)))
    return replace(parts[0], times=made.times, channels=channels, values=made.values)
