"""What a bundle says in numbers: network, scales and calibration of one group, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.core.alerts import ModelRef

Array = npt.NDArray[np.float32]
Cell = Literal["lstm", "gru"]
Mode = Literal["carried", "windowed"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One recurrent layer, in Keras' gate order (LSTM i, f, c, o; GRU z, r, h with reset_after).

    M is the number of networks: one shared by the group, or the shared one followed by one per sensor.
    """

    kernel: Array  # (M, inputs, gates * hidden)
    recurrent: Array  # (M, hidden, gates * hidden)
    bias: Array  # (M, 1, gates * hidden) for LSTM, (M, 2, gates * hidden) for GRU: input bias, recurrent bias


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A unidirectional recurrent forecaster with a linear head over (last hidden state, input)."""

    cell: Cell
    mode: Mode
    window: int  # readings the state is rebuilt from; in windowed mode, all it ever sees
    horizons: tuple[int, ...]  # steps ahead, the first is 1
    layers: tuple[Layer, ...]
    head: Array  # (M, hidden + inputs, horizons * targets); the input's rows are the skip
    head_bias: Array  # (M, 1, horizons * targets)

    @property
    def networks(self) -> int:
        """M: how many sets of weights."""
        return int(self.head.shape[0])

    @property
    def hidden(self) -> int:
        """Units of the last layer."""
        return int(self.layers[-1].recurrent.shape[1])

    @property
    def inputs(self) -> int:
        """Width of the input: each channel and its change."""
        return int(self.layers[0].kernel.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class SensorTables:
    """What was learned of each sensor, one row a sensor; the arrays' meaning belongs to `core.table`."""

    names: Sequence[str]  # (S,) sorted
    arrays: Mapping[str, npt.NDArray[Any]]  # field -> (S, ...), as `SensorTable` lays them out


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Everything the detector needs to serve one group."""

    ref: ModelRef
    group: str
    channels: tuple[str, ...]  # in input order
    targets: tuple[str, ...]  # the channels that are forecast and scored; the others are inputs only
    interval: int  # µs between readings
    network: Network
    sensors: SensorTables
    prior: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)  # field -> (...) for an unseen sensor

    @property
    def target_columns(self) -> npt.NDArray[np.intp]:
        """Where each target stands among the channels, (targets,)."""
        return np.array([self.channels.index(t) for t in self.targets], dtype=np.intp)
