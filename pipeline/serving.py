"""What serves: the models, the rules that the settings make for each of them, and the hash that names those rules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.adapters.sensors import bounds, read_sensors_csv
from pipeline.bundle import BundleError
from pipeline.core.alerts import Kind
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.joining import Joiner
from pipeline.core.model import Model
from pipeline.core.readings import SECOND
from pipeline.core.silence import InputWatch
from pipeline.core.tags import Tags
from pipeline.core.thresholds import Budget
from pipeline.fast import Kernel, walkers
from pipeline.groups import Groups
from pipeline.routing import Router, groups_of
from pipeline.settings_schema import Settings


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that decides about alerts, by group."""

    models: Mapping[str, Model]
    rules: Mapping[str, Rules]
    muted: frozenset[Kind]  # kinds that the settings switched off
    input_silent_share: float
    patterns: Mapping[str, str]  # of sensors, where the settings have one
    fingerprint: str  # SHA-256 of the settings and of sensors.csv, as far as they can change an alert
    join: bool = False  # readings that name a part of their channels wait for the others
    tag: str | None = None  # pattern of sensors that are one channel of another
    kernel: Kernel = "numpy"

    def groups(self) -> Groups:
        """A new detector for each group, behind their router; KernelError."""
        compiled = walkers(self.kernel)
        detectors = {name: Detector(model, self.rules[name], walkers=compiled) for name, model in self.models.items()}
        watch = InputWatch(self.input_silent_share)
        router, tags = Router(groups_of(self.models, self.patterns)), Tags(self.tag) if self.tag else None
        return Groups(detectors, router, self.muted, watch, self._joiners(), tags)

    def _joiners(self) -> dict[str, Joiner]:
        return {
            name: Joiner(
                len(model.channels), model.interval, max_future=self.rules[name].max_future,
                most=self.rules[name].most_sensors,
            )
            for name, model in self.models.items()
            if (self.join or self.tag) and len(model.channels) > 1
        }  # fmt: skip


def serving(settings: Settings, models: Mapping[str, Model]) -> Serving:
    """What these settings make of these models; DataError where sensors.csv cannot be read."""
    patterns, detection = settings.model.groups, settings.detection
    if strangers := sorted(patterns.keys() - models.keys()):
        raise BundleError(
            f"{settings.model.dir}: no bundle for {', '.join(strangers)}, which model.groups names; "
            f"there are {', '.join(sorted(models))}"
        )
    sensors = read_sensors_csv(settings.sensors_csv) if settings.sensors_csv else []
    fleet = sum(len(model.sensors.names) for model in models.values())
    rules = {
        name: Rules(
            fleet=fleet,
            budget=Budget.parse(detection.budget),
            max_future=round(detection.max_future_seconds * SECOND),
            reorder=detection.reorder,
            bridge=detection.bridge,
            bounds=bounds(sensors, model.channels),
            most_sensors=detection.max_sensors_per_partition,
        )
        for name, model in models.items()
    }
    on = {
        Kind.STUCK: detection.stuck,
        Kind.GAP: detection.gap,
        Kind.LIMIT: detection.limit,
        Kind.CLOCK: detection.clock,
    }
    muted = frozenset(kind for kind, wanted in on.items() if not wanted)
    fingerprint = hashlib.sha256(f"{settings.fingerprint()} {sensors}".encode()).hexdigest()
    share, join, tag = detection.input_silent_share, settings.model.join, settings.model.tag
    return Serving(models, rules, muted, share, patterns, fingerprint, join, tag, settings.kernel)
