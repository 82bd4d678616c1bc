"""Sensors that are named by tag, one channel each: the pattern in the settings says whose channel a tag is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.core.frames import Frame
from pipeline.core.names import MAX_SENSOR_CHARACTERS, Names, fault
from pipeline.core.patterns import compiled
from pipeline.core.readings import PLAIN

MAX_TAGS = 2**18  # remembered; a hostile sender can name tags without end


class Tags:
    """Readings of one unnamed channel, renamed; decided from the one reading and the settings alone."""

    def __init__(self, pattern: str) -> None:
        """A regular expression with the groups `sensor` and `channel`, for whole names; ValueError for any other.

        Nor is one taken that a name could keep busy.
        """
        self._pattern = compiled(pattern, MAX_SENSOR_CHARACTERS)
        if not self._pattern.groupindex.keys() >= {"sensor", "channel"}:
            raise ValueError(f"{pattern!r:.80} has not both (?P<sensor>...) and (?P<channel>...)")
        self._known: dict[str, tuple[str, str] | None] = {}  # may be cleared

    def place(self, name: str) -> tuple[str, str] | None:
        """Sensor and channel; None where the name is no tag, or what it calls the sensor cannot be the name of one."""
        if name not in self._known:
            if len(self._known) >= MAX_TAGS:
                self._known.clear()
            found = self._pattern.fullmatch(name) if len(name) <= MAX_SENSOR_CHARACTERS else None
            whole = found and all(found.groupdict().values()) and fault(found["sensor"]) is None
            self._known[name] = (found["sensor"], found["channel"]) if found and whole else None
        return self._known[name]

    def renamed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same readings, those of tags under their sensor's name, with the channel named."""
        for frame in frames:
            if frame.channels == (PLAIN,):
                yield from self._apart(frame)
            else:
                yield frame

    def _apart(self, frame: Frame) -> Iterator[Frame]:
        found = [self.place(name) for name in frame.sensors.table]
        kinds = list(dict.fromkeys(place and place[1] for place in found))
        if kinds == [None]:
            yield frame
            return
        names = Names([place[0] if place else name for place, name in zip(found, frame.sensors.table, strict=True)],
                      frame.sensors.at)  # fmt: skip
        which = np.array([kinds.index(place and place[1]) for place in found])[frame.sensors.at]
        for code, channel in enumerate(kinds):
            rows = np.flatnonzero(which == code)
            if len(rows):
                yield replace(frame, sensors=names, channels=(channel or PLAIN,)).take(rows)
