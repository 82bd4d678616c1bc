"""The sensors of many readings: each name once, and for each reading where its name stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]

MAX_SENSOR_CHARACTERS = 256


def fault(name: str) -> str | None:
    """Why this cannot be the name of a sensor; None where it can."""
    if not name or name.isspace():
        return "the sensor's name is empty"
    if len(name) > MAX_SENSOR_CHARACTERS:
        return f"the sensor's name has {len(name)} characters; the limit is {MAX_SENSOR_CHARACTERS}"
    if not name.isprintable():
        return f"the sensor's name {name!a} has characters that cannot be printed"
    return None


class Names(Sequence[str]):
    """A sequence of names, dictionary-encoded: reading i is of sensor `table[at[i]]`.

    A name may stand in the table more than once or be used by no reading. The readings of one entry are all of one
    partition.
    """

    __slots__ = ("at", "table")

    def __init__(self, table: Sequence[str], at: Rows | None = None) -> None:
        """Without `at`, one reading of each entry, in the table's order."""
        self.table = table
        self.at = np.arange(len(table)) if at is None else at  # (n,)

    def __len__(self) -> int:
        return len(self.at)

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> Names: ...

    def __getitem__(self, i: int | slice) -> str | Names:
        return Names(self.table, self.at[i]) if isinstance(i, slice) else self.table[self.at[i]]

    def __iter__(self) -> Iterator[str]:
        return map(self.table.__getitem__, self.at.tolist())

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice) -> Names:
        """The names of the readings at `rows`, in that order; the table stays."""
        return Names(self.table, self.at[rows])


def coded(names: Sequence[str]) -> Names:
    """Any sequence of names as `Names`."""
    return names if isinstance(names, Names) else Names(names)


def joined(parts: Sequence[Names]) -> Names:
    """One after the other; each part keeps its own entries."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.table) for part in parts)])
    table = [name for part in parts for name in part.table]
    return Names(table, np.concatenate([part.at + start for part, start in zip(parts, starts, strict=False)]))
