"""Collapsed stacks of a profiler as a flame graph: what is below `turns`, the wider the longer.

Gregg, "The Flame Graph", CACM 59(6), 2016.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = "turns (benchmarks/turns.py)"
WIDTH, HEIGHT, LETTER = 1200.0, 18, 6.4  # px: of the picture, a frame, a letter
LEAST = 1.0  # px; what is narrower is left out
COLOURS = {"pipeline/fast": "#e4572e", "pipeline/core": "#f3a712", "pipeline/codecs": "#5b8e7d", "pipeline": "#bcd8c1"}
ELSEWHERE = "#d8d8d8"


class Frame(NamedTuple):
    """One box."""

    name: str
    x: float  # share of the whole
    width: float
    depth: int


def main(stacks: str, picture: str) -> None:
    """Read the one, write the other."""
    Path(picture).write_text(svg(list(frames(Path(stacks).read_text().splitlines()))), encoding="utf-8")


def frames(lines: Iterable[str]) -> Iterator[Frame]:
    """The boxes, each beside the others of its caller in the order of their names."""
    samples: dict[tuple[str, ...], int] = defaultdict(int)
    for line in lines:
        stack, _, count = line.rpartition(" ")
        names = stack.split(";")
        if ROOT in names:
            below = names[names.index(ROOT) :]
            for depth in range(1, len(below) + 1):
                samples[tuple(below[:depth])] += int(count)
    whole = samples[(ROOT,)]
    if not whole:
        raise SystemExit(f"no stack has {ROOT}: profile benchmarks.turns")
    ends: dict[tuple[str, ...], float] = {}  # where the next box of a caller begins
    for stack_of in sorted(samples):
        caller, width = stack_of[:-1], samples[stack_of] / whole
        x = ends.get(caller, 0.0)
        ends[caller], ends[stack_of] = x + width, x
        yield Frame(stack_of[-1], x, width, len(stack_of) - 1)


def svg(boxes: list[Frame]) -> str:
    """The picture, callers at the bottom."""
    shown = [box for box in boxes if box.width * WIDTH >= LEAST]
    height = (max(box.depth for box in shown) + 1) * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" font-family="monospace"'
        ' font-size="10.5"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for name, at, share, depth in shown:
        x, y, width = at * WIDTH, height - (depth + 1) * HEIGHT, share * WIDTH
        colour = next((colour for where, colour in COLOURS.items() if where in name), ELSEWHERE)
        letters = int((width - 4) / LETTER)
        label = name if len(name) <= letters else name.partition(" ")[0][:letters]
        parts.append(
            f'<g><title>{escape(name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}"'
            f' height="{HEIGHT - 1}" fill="{colour}"/><text x="{x + 2:.1f}" y="{y + 12}">{escape(label)}</text></g>'
        )
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main(*sys.argv[1:])
