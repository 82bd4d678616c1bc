"""A batch cut into rounds, so that all sensors move at once and the readings of each keep their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


def rounds(rows: Rows) -> Iterator[Rows]:
    """Positions in stream order, cut so that each cut holds a row at most once and a row's positions stay in order."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = (
        np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else np.empty(0, np.intp)
    )
    lengths = np.diff(np.concatenate([starts, [len(rows)]]))
    if len(rows) and lengths.max() == 1:
        yield np.arange(len(rows))
        return
    occurrence = np.empty(len(rows), np.intp)
    occurrence[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    by_round = np.argsort(occurrence, kind="stable")
    for start, stop in zip(*_edges(occurrence[by_round]), strict=True):
        yield by_round[start:stop]


def _edges(ordered: Rows) -> tuple[list[int], list[int]]:
    if len(ordered) == 0:
        return [], []
    cuts = (np.flatnonzero(np.diff(ordered)) + 1).tolist()
    return [0, *cuts], [*cuts, len(ordered)]
