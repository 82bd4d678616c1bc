"""The rows of the table: the detector whole, without one of its parts, with one part alone, with another forecaster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.ablation import controls
from pipeline.core.episodes import UNSEEN_BLOCKS
from pipeline.core.features import MANY_CHANNELS, ONE_CHANNEL
from pipeline.core.lstm import Steps
from pipeline.core.model import Array, Model
from pipeline.core.scoring import Weights
from pipeline.core.table import Level
from training.sequences import Sequences
from training.unseen import pooled

NOVELTY = frozenset({"new value", "new pattern"})
ERRORS = frozenset({*ONE_CHANNEL, *MANY_CHANNELS}) - NOVELTY - {"out of range"}
UNMOVED = 1e6  # blocks: against them a sensor's own weigh nothing

Fit = Callable[[Sequences, Sequence[int]], Steps]  # learned from the fit part of the histories, for these horizons


@dataclass(frozen=True, slots=True)
class Silent(Weights):
    """The usual weights, but for features that count for nothing."""

    features: frozenset[str] = frozenset()

    def of(self, targets: int, unseen: bool) -> Array:
        """As `Weights.of`, summing to 1 over what is left."""
        names = ONE_CHANNEL if targets == 1 else MANY_CHANNELS
        left = Weights.of(self, targets, unseen) * np.array([name not in self.features for name in names])
        heard: Array = (left / left.sum()).astype(np.float32)
        return heard


def unchanged(model: Model) -> Model:
    """As calibrated."""
    return model


def by_group_alone(model: Model) -> Model:
    """Every sensor is judged by what is the usual episode in its group, whatever its own are like."""
    tables = dict(model.sensors.arrays)
    tables["level"] = np.tile(_usual(model, UNMOVED), (len(model.sensors.names), 1))
    known = replace(model, sensors=replace(model.sensors, arrays=tables))
    if not model.prior:  # every sensor is known
        return known
    level = model.prior["level"].copy()
    level[Level.OWN_BLOCKS] = UNMOVED
    return replace(known, prior={**model.prior, "level": level})


def prior_as_trained(model: Model) -> Model:
    """A new sensor is taken for one of those that were trained on."""
    tail = pooled(model.sensors.arrays["tail"])
    return replace(model, prior={**model.prior, "tail": tail, "level": _usual(model, UNSEEN_BLOCKS)})


def _usual(model: Model, blocks: float) -> Array:
    """The learned columns of `Level`: medians over the sensors, and how many blocks they weigh."""
    usual = np.median(model.sensors.arrays["level"][:, : Level.EXCESS + 1], axis=0)
    return np.array([*usual, *usual, blocks], np.float32)


@dataclass(frozen=True, slots=True)
class Part:
    """A row: how its detector differs from the whole one."""

    name: str
    weights: Weights = field(default_factory=Weights)
    tables: Callable[[Model], Model] = unchanged  # after calibration
    control: Fit | None = None  # in the network's place


WHOLE = Part("whole detector")


def parts(models: Sequence[Model], unseen: bool) -> Iterator[Part]:
    """Every row but the whole; one that could change nothing in these groups is left out.

    `unseen`: there are sensors to judge that the models were not trained on.
    """
    targets = {len(model.targets) for model in models}
    one, many = 1 in targets, targets != {1}
    features = dict.fromkeys((*ONE_CHANNEL * one, *MANY_CHANNELS * many))
    for feature in features:
        yield Part(f"without {feature}", Silent(features=frozenset({feature})))
    if one:  # of many channels it is new value alone
        yield Part("without novelty", Silent(features=NOVELTY))
    yield Part("errors only", Silent(features=frozenset(features) - ERRORS))
    yield Part("novelty only", Silent(features=frozenset(features) - NOVELTY))
    if many:
        yield Part("mean of channels alone", Weights(loudest=0, unseen_loudest=0))
    yield Part("group's episodes alone", tables=by_group_alone)
    if unseen:
        yield Part("prior of trained sensors", tables=prior_as_trained)
    yield from control_parts({len(model.channels) for model in models})


def control_parts(channels: set[int]) -> Iterator[Part]:
    """The permanent controls, for groups of so many channels."""
    regression = "AR ridge" if channels == {1} else "VAR ridge" if 1 not in channels else "AR/VAR ridge"
    yield Part("last value", control=controls.last_value)
    yield Part("EWMA", control=controls.ewma)
    yield Part(regression, control=controls.ridge)
