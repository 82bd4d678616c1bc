"""The demo as one looks at it: live signals with their forecasts, alerts as they come and go, and the verdict."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import StringIO
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.readings import SECOND
from pipeline.demo.faults import FaultKind
from pipeline.demo.verdict import Judgement, Verdict

BLOCKS = "▁▂▃▄▅▆▇█"
COLUMN_READINGS = 4  # readings behind one column of a sparkline; the one furthest from its forecast is drawn
MOST_COLUMNS = 64
MOST_SENSORS = 10
MOST_ALERTS = 8
FRAME_SECONDS = 0.2
LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
RATE_SECONDS = 3.0  # over which readings a second are measured

ACTUAL, EXPECTED, ALARMED, QUIET = "cyan", "grey46", "bold red", "bright_black"
STATES = {State.FIRING: ALARMED, State.UPDATE: "yellow", State.RESOLVED: "green"}

Column = tuple[float, float, bool]  # actual, expected, an alert is open


class Trace:
    """The last columns of one channel's sparkline, and its newest reading."""

    def __init__(self) -> None:
        self.actual = self.expected = math.nan
        self.columns: deque[Column] = deque(maxlen=MOST_COLUMNS)
        self._count = 0

    def add(self, actual: float, expected: float, alarmed: bool) -> None:
        """One reading, its forecast (NaN: none), and whether an alert was open."""
        self.actual, self.expected = actual, expected
        if self._count % COLUMN_READINGS == 0:
            self.columns.append((actual, expected, alarmed))
        elif abs(actual - expected) > abs(self.columns[-1][0] - self.columns[-1][1]):
            self.columns[-1] = (actual, expected, alarmed)
        self._count += 1


class DemoView:
    """Shows a demo on a terminal, or tells it in plain lines where there is none. Used from one thread."""

    def __init__(
        self, console: Console, sensors: Sequence[str], broker: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._broker, self._clock = console, broker, clock
        self._traces: dict[str, dict[str, Trace]] = {sensor: {} for sensor in sensors}
        self._open: dict[str, Alert] = {}
        self._touched: dict[str, str] = {}  # sensor -> channel of its latest alert, the latest sensor last
        self._alerts: deque[Alert] = deque(maxlen=MOST_ALERTS)
        self._total = self._lag = self._event_time = 0
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])  # when, readings until then
        self._drawn = clock()
        self._live = Live(console=console, get_renderable=self.render, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def readings(self, count: int, event_time: int) -> None:
        """So many more readings were processed, the newest with this event time (µs UTC)."""
        self._total += count
        self._event_time = max(self._event_time, event_time)

    def lag(self, readings: int) -> None:
        """So many readings wait in the broker."""
        self._lag = readings

    def point(self, sensor: str, channel: str, actual: float, expected: float) -> None:
        """A reading of one channel and its forecast, NaN where there is none."""
        trace = self._traces.setdefault(sensor, {}).setdefault(channel, Trace())
        trace.add(actual, expected, any(a.sensor == sensor for a in self._open.values()))

    def alert(self, alert: Alert) -> None:
        """An alert as it was published."""
        if alert.state is State.RESOLVED:
            self._open.pop(alert.alert_id, None)
        else:
            self._open[alert.alert_id] = alert
        if alert.state is not State.UPDATE:
            self._alerts.append(alert)
            self._touched.pop(alert.sensor, None)
            self._touched[alert.sensor] = _channel(alert)
            if not self._console.is_terminal:
                self._console.print(_told(alert), soft_wrap=True)

    def refresh(self) -> None:
        """Draw a frame or tell a line of progress, if one is due; call it as often as you like."""
        now = self._clock()
        if now - self._drawn < (FRAME_SECONDS if self._console.is_terminal else LINE_SECONDS):
            return
        self._drawn = now
        self._marks.append((now, self._total))
        while now - self._marks[0][0] > RATE_SECONDS and len(self._marks) > 2:
            self._marks.popleft()
        if self._console.is_terminal:
            self._live.refresh()
        else:
            self._console.print("  ".join(f"{name} {value}" for name, value in self._figures()), soft_wrap=True)

    def render(self) -> RenderableType:
        """The frame: figures, signals, alerts."""
        return Group(self._header(), self._signals(), self._log())

    def verdict(self, verdict: Verdict) -> None:
        """Print the final tables."""
        self._console.print(verdict_tables(verdict))

    def _figures(self) -> list[tuple[str, str]]:
        (then, before), (now, total) = self._marks[0], self._marks[-1]
        rate = (total - before) / (now - then) if now > then else 0.0
        return [
            ("broker", self._broker),
            ("event time", _stamp(self._event_time)),
            ("readings", f"{self._total:,}"),
            ("readings/s", f"{rate:,.0f}"),
            ("lag", f"{self._lag:,}"),
            ("alerts open", str(len(self._open))),
        ]

    def _header(self) -> Table:
        grid = Table(box=box.SIMPLE_HEAD, expand=True, header_style=QUIET, pad_edge=False)
        for name, _ in self._figures():
            grid.add_column(name, no_wrap=True)
        grid.add_row(*(Text(value, style="bold") for _, value in self._figures()))
        return grid

    def _signals(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, header_style=QUIET, pad_edge=False)
        columns = max(min(self._console.width - 58, MOST_COLUMNS), 12)
        table.add_column("sensor", no_wrap=True)
        table.add_column("channel", no_wrap=True)
        table.add_column(Text.assemble(("actual", ACTUAL), (" over expected", EXPECTED)), no_wrap=True, width=columns)
        table.add_column("", justify="right", no_wrap=True, min_width=9)
        table.add_column("alert", no_wrap=True, min_width=8)
        for sensor in self._interesting():
            traces = self._traces[sensor]
            wanted = self._touched.get(sensor, "")
            channel = wanted if wanted in traces else next(iter(traces))
            trace = traces[channel]
            kinds = dict.fromkeys(a.kind.value for a in self._open.values() if a.sensor == sensor)
            table.add_row(
                sensor,
                channel,
                sparkline(list(trace.columns)[-columns:]),
                Text.assemble((_number(trace.actual), ACTUAL), "\n", (_number(trace.expected), EXPECTED)),
                Text("\n".join(kinds), style=ALARMED),
            )
        return table

    def _interesting(self) -> list[str]:
        """Sensors with open alerts first, the newest on top, then those that had one, then the others in order."""
        open_now = {a.sensor for a in self._open.values()}
        latest = list(self._touched)[::-1]
        ranked = [s for s in latest if s in open_now] + [s for s in latest if s not in open_now] + list(self._traces)
        room = max((self._console.height - MOST_ALERTS - 11) // 2, 3)
        return [s for s in dict.fromkeys(ranked) if self._traces.get(s)][: min(room, MOST_SENSORS)]

    def _log(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, header_style=QUIET, pad_edge=False)
        for name in ("time", "alert", "kind", "sensor", "channel"):
            table.add_column(name, no_wrap=True)
        table.add_column("what was seen", no_wrap=True, ratio=1)
        for alert in self._alerts:
            state = Text(alert.state.value, style=STATES[alert.state])
            stamp = Text(_stamp(alert.last), style=QUIET)
            table.add_row(stamp, state, alert.kind.value, alert.sensor, _channel(alert), _seen(alert))
        for _ in range(MOST_ALERTS - len(self._alerts)):
            table.add_row()
        return table


def sparkline(columns: Sequence[Column]) -> Text:
    """Two lines on one scale: the actual above the expected; red where an alert was open, blank where none is known."""
    known = [value for actual, expected, _ in columns for value in (actual, expected) if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        return BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] if high > low else BLOCKS[3]

    line = Text()
    for actual, _, alarmed in columns:
        line.append(block(actual), style=ALARMED if alarmed else ACTUAL)
    return line.append("\n").append("".join(block(expected) for _, expected, _ in columns), style=EXPECTED)


def verdict_tables(verdict: Verdict) -> RenderableType:
    """Faults by kind, found by the service and by the control; then how the stream was handled."""
    table = Table(box=box.SIMPLE_HEAD, header_style=QUIET, pad_edge=False)
    table.add_column("fault")
    for name in ("injected", "found", "missed", "delay", "EWMA chart found", "delay "):
        table.add_column(name, justify="right")

    def row(name: str, service: Judgement, control: Judgement, style: str = "") -> None:
        missed = service.injected - service.found
        table.add_row(
            name,
            str(service.injected),
            str(service.found),
            Text(str(missed), style="red" if missed else QUIET),
            _delay(service),
            str(control.found),
            _delay(control),
            style=style,
        )

    for kind in FaultKind:
        row(kind.value, verdict.service.of(kind), verdict.control.of(kind))
    table.add_section()
    row("all", verdict.service, verdict.control, style="bold")

    figures = Table(box=None, show_header=False)
    for detector, judgement in (("foreshock", verdict.service), ("EWMA chart", verdict.control)):
        share = judgement.found / judgement.injected if judgement.injected else 0.0
        figures.add_row(
            Text(detector, style="bold"),
            f"{share:.0%} found",
            f"{judgement.false_alarms} false alarms, {judgement.false_alarms_per_10k:.2f} in 10,000 readings",
        )
    handled = (
        f"{verdict.service.readings:,} readings in {verdict.seconds:.0f} s through {verdict.broker}",
        f"produced to alert visible: {verdict.latency_p50_ms:.0f} ms (median), {verdict.latency_p99_ms:.0f} ms (99 %)",
        "delays are medians, in readings",
        "",
        "a score of 3 is one false alarm in a thousand readings, 6 one in a million;",
        "an alert opens where that is the budget, which --budget sets.",
        "next, on files of yours (a timestamp, then a column for each channel):",
        "  foreshock train history/ --model models/    and a report.html beside each model",
        "  foreshock replay history/ --model models/ --scores out/ --alerts alerts.jsonl",
        "  foreshock doctor, then foreshock run    alerts: topic sensor.alerts; /metrics",
    )
    return Group(table, figures, Padding(Text("\n".join(handled), style=QUIET), (1, 1)))


def picture(render: RenderableType, title: str, width: int = 118) -> str:
    """A frame as SVG, in whatever fixed-width font the reader has: nothing is fetched to show it."""
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render)
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")


def _channel(alert: Alert) -> str:
    """The channel meant, or the one that contributed most."""
    return alert.channel or max(alert.contributions, key=alert.contributions.__getitem__, default="")


def _seen(alert: Alert) -> str:
    """Why it opened, or how it ended, in one line."""
    if alert.state is State.RESOLVED and alert.resolution and alert.end:
        return f"{alert.resolution.value} after {(alert.end - alert.start) / (60 * SECOND):.0f} min"
    if alert.kind is not Kind.FORECAST:
        return f"{_number(alert.measure)} {alert.unit}, limit {_number(alert.limit)} {alert.unit}"
    channel = _channel(alert)
    seen = f"{_number(alert.actual.get(channel))}, expected {_number(alert.expected.get(channel))}"
    return f"score {_number(alert.score)} over {_number(alert.threshold)}: {seen}"


def _told(alert: Alert) -> Text:
    """An alert as one line of plain text."""
    what = " ".join(part for part in (alert.kind.value, alert.sensor, _channel(alert)) if part)
    return Text(f"{_stamp(alert.last)}  {alert.state.value:8}  {what}  {_seen(alert)}")


def _stamp(event_time: int) -> str:
    return datetime.fromtimestamp(event_time / SECOND, UTC).strftime("%a %H:%M")


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _delay(judgement: Judgement) -> str:
    return "-" if judgement.delay_readings is None else f"{judgement.delay_readings:g}"
