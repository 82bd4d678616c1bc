"""Champion and challenger: the forecast errors of two models on the same held-out readings, in the same unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.core import scaling
from pipeline.core.engine import LARGEST_FORECAST
from pipeline.core.lstm import squash
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray
from pipeline.core.table import Count
from training.baselines import Errors, Trial, mean_squares, served
from training.dataset import Group
from training.train import sequences

Scales = Mapping[str, FloatArray]  # sensor -> (channels, 2) location and scale


def scales_of(model: Model) -> Scales:
    """What the model scales each of its sensors with."""
    return {name: model.sensors.arrays["scale"][row] for row, name in enumerate(model.sensors.names)}


def held_out_error(model: Model, group: Group, unit: Scales) -> Errors:
    """Mean squared error of the model's forecasts on the group's held-out readings, (horizons,), NaN where none is.

    Errors are those of z in the scales `unit`, whatever the model's own are: what it forecasts is put back into the
    channel's unit first. A sensor that it does not know is forecast by its shared network in the scales `unit`.
    """
    return mean_squares(_trials(model, group, unit), len(model.network.horizons))


def _trials(model: Model, group: Group, unit: Scales) -> Iterator[Trial]:
    long = [h for h in group.histories if h.enough]
    networks = dict(zip(model.sensors.names, _networks(model), strict=True))
    which = np.array([networks.get(h.sensor, 0) for h in long], np.int32)
    own_scales = {**unit, **scales_of(model)}
    own, common = (sequences(group, long, scales, "held out") for scales in (own_scales, unit))
    owners = [h.sensor for h, segments in zip(long, own.sensors, strict=True) for _ in segments]
    targets, horizons = own.target_columns, np.array(model.network.horizons)
    forecasts = served(model.network, own, which)
    for sensor, x, u, (ahead, _, known) in zip(owners, own.segments(), common.segments(), forecasts, strict=True):
        z = np.clip(squash(x)[:, None, targets] + ahead, -LARGEST_FORECAST, LARGEST_FORECAST)
        raw = scaling.unscaled(np.sinh(z), own_scales[sensor][targets])
        later = np.minimum(np.arange(len(u))[:, None] + horizons, len(u) - 1)
        yield squash(scaling.scaled(raw, unit[sensor][targets])), squash(u)[:, targets][later], known


def _networks(model: Model) -> list[int]:
    """Which network serves each sensor of the model."""
    return model.sensors.arrays["count"][:, Count.NETWORK].tolist() if model.sensors.names else []
