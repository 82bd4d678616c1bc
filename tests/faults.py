"""The table of faults: a test of one is marked `fault(what, expected=...)` and says what it saw.

`--faults FILE` writes the table.

`conftest` takes over the hooks. A parametrized test names its cases in the marker: "killed when {point}".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
SEEN = "seen"
HEAD = """# Faults, what is expected, what was seen

Every fault here is injected by a test, which fails where the expected does not come about. What was seen is from the
run that wrote this page, `make faults` on {machine}, shared with other work,
{day}; {broker}. `make faults ARGS=--long` takes outages of 60 s and a million
sensors instead of what every run of the tests has time for.

| fault | expected | seen | test |
| --- | --- | --- | --- |
"""
ROW = re.compile(
    r"^\| (?P<fault>.+?) \| (?P<expected>.+?) \| (?P<seen>.+?) \| \[`(?P<name>.+?)`\]\(\.\./(?P<file>.+?)\) \|$",
    re.MULTILINE,
)

Said = Callable[[str], None]


class Row(NamedTuple):
    """One fault; `test` is the id of what injects it."""

    fault: str
    expected: str
    test: str
    seen: str = ""

    def __str__(self) -> str:
        file, _, name = self.test.partition("::")
        return f"| {self.fault} | {self.expected} | {self.seen} | [`{name}`](../{file}) |"


def row_of(item: pytest.Item) -> Row | None:
    """What the marker of a test says; None where it has none."""
    marker = item.get_closest_marker("fault")
    if marker is None:
        return None
    case = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    suite = getattr(item, "cls", None)
    words = {"suite": suite.__name__.removeprefix("Test") if suite else "", **case}
    return Row(marker.args[0].format(**words), marker.kwargs["expected"].format(**words), item.nodeid)


def rows_of(page: str) -> list[Row]:
    """What the page says."""
    return [Row(r["fault"], r["expected"], f"{r['file']}::{r['name']}", r["seen"]) for r in ROW.finditer(page)]


def written(rows: Iterable[Row], broker: str) -> str:
    """The page."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    machine = f"{os.cpu_count()} cores of {model[1] if model else 'an unknown processor'}"
    head = HEAD.format(machine=machine, day=f"{datetime.now(UTC):%Y-%m-%d}", broker=broker)
    return head + "".join(f"{row}\n" for row in sorted(rows, key=lambda row: row.test))


class FaultTable:
    """Gathers the rows of a run, and writes them where all tests passed."""

    def __init__(self, page: Path | None) -> None:
        self.collected: list[Row] = []  # before anything is deselected
        self._page = page
        self._seen: dict[str, str] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if row := row_of(item):
            self.collected.append(row)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test of a fault that passes has to say what it saw."""
        result = yield
        said = [str(text) for name, text in item.user_properties if name == SEEN]
        if marker := item.get_closest_marker("fault"):
            said += [marker.kwargs["seen"]] if "seen" in marker.kwargs else []  # a property: whatever it was given
            assert said, "the test of a fault says what it saw: seen(...)"
            self._seen[item.nodeid] = "; ".join(said)
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Write the page, or say why it is left as it is."""
        if self._page is None:
            return
        if exitstatus or not self._seen:
            terminalreporter.line(f"{self._page} is left as it is: not every test of a fault passed", red=True)
            return
        from tests.conftest import BROKER

        chosen = terminalreporter.config.stash.get(BROKER, None)
        rows = [row._replace(seen=self._seen[row.test]) for row in self.collected if row.test in self._seen]
        self._page.write_text(written(rows, chosen.name if chosen else "no broker"), encoding="utf-8")


TABLE = pytest.StashKey[FaultTable]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `make faults`."""
    parser.addoption("--faults", type=Path, metavar="FILE", help="write the table of faults there")
    parser.addoption("--long", action="store_true", help="faults in their long form: 60 s, a million sensors")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table."""
    config.stash[TABLE] = FaultTable(config.getoption("--faults"))
    config.pluginmanager.register(config.stash[TABLE])


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Said:
    """Say what a test of a fault has seen."""
    return partial(record_property, SEEN)


@pytest.fixture
def in_long_form(pytestconfig: pytest.Config) -> bool:
    """Whether there is time for the long form of a fault."""
    return bool(pytestconfig.getoption("--long"))
