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
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from pipeline.core.model import Model
from pipeline.core.readings import Reading, Reason, Rejected

PLAIN = "value"  # the channel of a reading that names none
MAX_CACHED = 4096  # decisions; a hostile sender can name channels without end
MAX_SHOWN = 8  # names in a refusal


class Group(NamedTuple):
    """What routing knows of one bundle; `sensors` is asked once a reading, so its `in` must be quick."""

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
        self._chosen: dict[tuple[tuple[str, ...], tuple[str, ...]], str | None] = {}  # a cache; it may be cleared

    def split(self, readings: Iterable[Reading]) -> tuple[dict[str, list[Reading]], list[Rejected]]:
        """The readings of each group in their order, and a refusal for each that no group reads.

        A refusal names partition and offset; the topic and the message are known to whoever decoded it.
        """
        routed: dict[str, list[Reading]] = {}
        rejected: list[Rejected] = []
        for reading in readings:
            candidates = self._candidates(reading.sensor)
            group = self._choose(candidates, tuple(reading.values))
            if group is None:
                detail = self._refusal(reading, candidates)
                rejected.append(Rejected(Reason.NO_GROUP, detail, partition=reading.partition, offset=reading.offset))
            else:
                routed.setdefault(group, []).append(self._named(reading, group))
        return routed, rejected

    def _candidates(self, sensor: str) -> tuple[str, ...]:
        known = tuple(name for name, sensors in self._known if sensor in sensors)
        return known or tuple(name for name, pattern in self._patterns if pattern.match(sensor)) or self._unclaimed

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

    def _named(self, reading: Reading, group: str) -> Reading:
        channels = self._channels[group]
        if not channels.isdisjoint(reading.values):
            return reading
        (channel,) = channels  # only `value` is routed without a channel in common
        return reading._replace(values={channel: reading.values[PLAIN]})

    def _refusal(self, reading: Reading, candidates: tuple[str, ...]) -> str:
        seen = f"sensor {reading.sensor!a:.80} sends {_listed(reading.values)}"
        if not candidates:
            what = f"every group has a pattern, and none matches: {_listed(g.pattern for g in self._groups.values())}"
            return f"{seen}; {what}" if self._groups else f"{seen}; there is no group"
        offers = "; ".join(f"{name} reads {_listed(self._groups[name].channels)}" for name in candidates[:MAX_SHOWN])
        more = f"; and {len(candidates) - MAX_SHOWN} more groups" if len(candidates) > MAX_SHOWN else ""
        shared = any(self._channels[name] & reading.values.keys() for name in candidates)
        verdict = "fits several groups equally" if shared else "fits no group"
        return f"{seen}, which {verdict}: {offers}{more}"


def _listed(names: Iterable[object]) -> str:
    shown = [f"{name!s:.64}" for name in names]
    more = [f"and {len(shown) - MAX_SHOWN} more"] if len(shown) > MAX_SHOWN else []
    return ", ".join(shown[:MAX_SHOWN] + more)
