"""Which group reads a sensor, decided from the one reading and the models alone, so that a restart decides the same.

First the groups that may have the sensor: those whose bundle knows it by name; else those whose pattern matches its
name; else those that have no pattern. A pattern thus claims the sensors it matches and keeps others out.

Of these, the one whose channels the reading shares most; among equals, the one with the fewest other channels. Hence
the exact set of channels comes first, then the smallest set around it, then the widest overlap, whose unknown channels
are ignored. A tie is refused, and so is a reading that shares no channel.

A reading of the one channel `value` suits a group of one channel of any name, if it is the only such group.

A known sensor never moves. One that no bundle knows may, if it leaves out the channels that tell its group from a
smaller one; to send them as null, or a pattern in the settings, keeps it where it is.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.frames import ROW_BITS, Frame
from pipeline.core.model import Model
from pipeline.core.readings import PLAIN, Reason, Rejected

MAX_CACHED = 4096  # decisions; a hostile sender can name channels without end,
MAX_SENSORS = 2**18  # and sensors
MAX_SHOWN = 8  # names in a refusal


class Group(NamedTuple):
    """What routing knows of one bundle; `sensors` is asked once a sensor, so its `in` must be quick."""

    channels: Sequence[str]
    sensors: AbstractSet[str] = frozenset()
    pattern: str | None = None  # as in a shell, e.g. plant1/pump-*; case counts


def groups_of(models: Mapping[str, Model], patterns: Mapping[str, str] | None = None) -> dict[str, Group]:
    """The models as routing sees them."""
    patterns = patterns or {}
    return {
        name: Group(model.channels, frozenset(model.sensors.names), patterns.get(name))
        for name, model in models.items()
    }


class Router:
    """Sends each reading to its group."""

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._groups = dict(sorted(groups.items()))
        self._channels = {name: frozenset(group.channels) for name, group in self._groups.items()}
        self._known = [(name, group.sensors) for name, group in self._groups.items()]
        self._patterns = [
            (name, re.compile(fnmatch.translate(group.pattern)))
            for name, group in self._groups.items()
            if group.pattern is not None
        ]
        self._unclaimed = tuple(name for name, group in self._groups.items() if group.pattern is None)
        # Two caches, which may be cleared.
        self._candidates_of: dict[str, tuple[str, ...]] = {}
        self._chosen: dict[tuple[tuple[str, ...], tuple[str, ...]], str | None] = {}

    def split(self, frames: Iterable[Frame]) -> tuple[dict[str, list[Frame]], list[Rejected]]:
        """The readings of each group, and a refusal for each message that has some that no group reads.

        A refusal names partition and offset; the topic and the message are known to whoever decoded it.
        """
        routed: dict[str, list[Frame]] = {}
        rejected: list[Rejected] = []
        for frame in frames:
            for candidates, rows in self._alike(frame):
                group = self._choose(candidates, frame.channels)
                if group is None:
                    rejected += self._refusals(frame.take(rows), candidates)
                else:
                    part = frame if len(rows) == len(frame) else frame.take(rows)
                    routed.setdefault(group, []).append(self._named(part, group))
        return routed, rejected

    def _alike(self, frame: Frame) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.intp]]]:
        """The frame's readings by the groups that may have their sensor; as a rule they are all alike."""
        of, names = self._candidates_of, frame.sensors
        found = list(map(of.get, names.table))
        if None in found:
            found = [self._candidates(name) for name in names.table]
        if len(kinds := set(found)) == 1:
            yield kinds.pop() or (), np.arange(len(frame))
            return
        codes = {kind: code for code, kind in enumerate(dict.fromkeys(found))}
        which = np.array([codes[kind] for kind in found])[names.at]
        for kind, code in codes.items():
            if len(rows := np.flatnonzero(which == code)):
                yield kind or (), rows

    def _candidates(self, sensor: str) -> tuple[str, ...]:
        candidates = self._candidates_of.get(sensor)
        if candidates is None:
            known = tuple(name for name, sensors in self._known if sensor in sensors)
            by_name = known or tuple(name for name, pattern in self._patterns if pattern.match(sensor))
            if len(self._candidates_of) >= MAX_SENSORS:
                self._candidates_of.clear()
            candidates = self._candidates_of[sensor] = by_name or self._unclaimed
        return candidates

    def _choose(self, candidates: tuple[str, ...], channels: tuple[str, ...]) -> str | None:
        key = (candidates, channels)
        if key not in self._chosen:
            if len(self._chosen) >= MAX_CACHED:
                self._chosen.clear()
            self._chosen[key] = self._best(candidates, frozenset(channels))
        return self._chosen[key]

    def _best(self, candidates: tuple[str, ...], channels: frozenset[str]) -> str | None:
        shared = {name: self._channels[name] & channels for name in candidates}
        fits = {name: (len(shared[name]), -len(self._channels[name])) for name in candidates if shared[name]}
        if fits:
            best = [name for name, fit in fits.items() if fit == max(fits.values())]
        else:
            best = [name for name in candidates if channels == {PLAIN} and len(self._channels[name]) == 1]
        return best[0] if len(best) == 1 else None

    def _named(self, frame: Frame, group: str) -> Frame:
        channels = self._channels[group]
        if not channels.isdisjoint(frame.channels):
            return frame
        return replace(frame, channels=tuple(channels))  # only `value` is routed without a channel in common

    def _refusals(self, frame: Frame, candidates: tuple[str, ...]) -> Iterator[Rejected]:
        offsets = frame.places >> ROW_BITS
        starts = np.flatnonzero(np.diff(offsets, prepend=-1) | np.diff(frame.partitions, prepend=-1))
        ends = [*starts[1:].tolist(), len(frame)]
        for start, end in zip(starts.tolist(), ends, strict=True):
            detail = self._refusal(frame.sensors[start], frame.channels, candidates)
            partition, offset = int(frame.partitions[start]), int(offsets[start])
            yield Rejected(Reason.NO_GROUP, detail, partition=partition, offset=offset, readings=end - start)

    def _refusal(self, sensor: str, channels: tuple[str, ...], candidates: tuple[str, ...]) -> str:
        seen = f"sensor {sensor!a:.80} sends {_listed(channels)}"
        if not candidates:
            what = f"every group has a pattern, and none matches: {_listed(g.pattern for g in self._groups.values())}"
            return f"{seen}; {what}" if self._groups else f"{seen}; there is no group"
        offers = "; ".join(f"{name} reads {_listed(self._groups[name].channels)}" for name in candidates[:MAX_SHOWN])
        more = f"; and {len(candidates) - MAX_SHOWN} more groups" if len(candidates) > MAX_SHOWN else ""
        shared = any(self._channels[name] & set(channels) for name in candidates)
        verdict = "fits several groups equally" if shared else "fits no group"
        return f"{seen}, which {verdict}: {offers}{more}"


def _listed(names: Iterable[object]) -> str:
    shown = [f"{name!s:.64}" for name in names]
    more = [f"and {len(shown) - MAX_SHOWN} more"] if len(shown) > MAX_SHOWN else []
    return ", ".join(shown[:MAX_SHOWN] + more)
