"""The pages say what the code does: examples run, links lead somewhere, names and numbers are those of the code."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
import typer.core
import typer.main

from pipeline import bundle
from pipeline.adapters import replay_folder
from pipeline.adapters.files import read
from pipeline.adapters.sensors import COLUMNS, read_sensors_csv
from pipeline.codecs.json import JsonReadings, decode_alert, encode_alert, encode_dead_letter
from pipeline.codecs.scores import encode_scores
from pipeline.core.alerts import Alert, Evidence, Kind, Resolution, Severity, State, alert_id
from pipeline.core.detector import Detector
from pipeline.core.features import MANY_CHANNELS, ONE_CHANNEL
from pipeline.core.model import Model
from pipeline.core.readings import Quality, Reason, Record
from pipeline.core.scoring import Weights
from pipeline.core.table import layout, row_bytes
from pipeline.groups import IGNORED
from pipeline.ports import Scored
from tests.faults import TABLE, rows_of
from tests.models import model, stream, waves
from training.evaluate import BudgetFigures, EventFigures, Figures

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```.*$", re.MULTILINE)
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
CONSTANT = re.compile(r"^\| `(?P<module>[a-z]+)\.(?P<name>[\w.]+)` \| (?P<value>[\d.]+) \|", re.MULTILINE)
PAGES_BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Markdown(doctest.DocTestParser):
    """A fence ends the expected output, as an empty line does."""

    def parse(self, string: str, name: str = "<string>") -> list[str | doctest.Example]:
        return super().parse(FENCE.sub("", string), name)


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next of any level."""
    _, found, rest = text(page).partition(f"# {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(content: str, language: str) -> list[str]:
    return [block["content"] for block in BLOCK.finditer(content) if block["language"] == language]


def table(content: str, first_column: str) -> list[list[str]]:
    """The rows of the first table whose first column has this head, cell by cell, without the marks of code."""
    _, found, rest = content.partition(f"| {first_column} |")
    assert found, f"there is no table of {first_column!r}"
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" |")] for row in rows]


def named(content: str, first_column: str) -> list[str]:
    return [row[0] for row in table(content, first_column)]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made where Markdown is shown."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """Every `foreshock …` in code, as words."""
    content = page.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.finditer(content) for line in block["content"].splitlines()]
    for code in [*lines, *CODE.findall(BLOCK.sub("", content))]:
        words = code.removeprefix("$").split()
        if words[:1] == ["foreshock"]:
            yield words[1:]


@PAGES_BY_NAME
def test_every_example_gives_what_it_says(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False, parser=Markdown(), encoding="utf-8").failed == 0


def test_the_worked_step_of_the_forecaster_is_among_them() -> None:
    examples = Markdown().get_examples(text("forecaster.md"))
    assert any("math.tanh(0.8 * 0.5 + 0.5 * 0.1)" in example.source for example in examples)
    assert "0.42\n" in [example.want for example in examples]


@PAGES_BY_NAME
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.finditer(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link["target"]):
            continue
        path, _, anchor = link["target"].partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link["target"]
        assert not anchor or anchor in slugs(target), link["target"]


@PAGES_BY_NAME
def test_every_command_exists_and_takes_the_options_it_is_shown_with(page: Path) -> None:
    from pipeline.cli import app

    for words in commands(page):
        command = typer.main.get_command(app)
        given = [word.partition("=")[0] for word in words if word.startswith("--")]
        while words and isinstance(command, typer.core.TyperGroup):
            found = command.get_command(typer.Context(command), words[0])
            assert found is not None, f"foreshock {words[0]}"
            command, words = found, words[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(given) <= known, f"foreshock {command.name} {given}"


@pytest.mark.parametrize("page", ["forecaster.md", "detection.md"])
def test_every_constant_is_the_one_in_the_code(page: str) -> None:
    shown = list(CONSTANT.finditer(text(page)))
    assert shown
    for row in shown:
        package = "training" if (ROOT / "training" / f"{row['module']}.py").exists() else "pipeline.core"
        found: object = importlib.import_module(f"{package}.{row['module']}")
        for part in row["name"].split("."):
            found = getattr(found() if isinstance(found, type) else found, part)
        assert found == pytest.approx(float(row["value"])), row["name"]


def test_every_feature_is_explained() -> None:
    shown = named(section("detection.md", "Features"), "feature")
    assert shown == [*ONE_CHANNEL[:5], MANY_CHANNELS[4], *ONE_CHANNEL[5:]]


def test_every_feature_has_the_share_that_is_shown() -> None:
    rows = table(section("detection.md", "One score"), "share of")
    assert [row[0].split(", ")[0] for row in rows] == list(ONE_CHANNEL)
    assert rows[4][0].split(", ") == [ONE_CHANNEL[4], MANY_CHANNELS[4]]
    shown = np.array([[float(share) for share in row[1:]] for row in rows])
    for column, (channels, unseen) in zip(shown.T, [(1, False), (8, False), (1, True), (8, True)], strict=True):
        np.testing.assert_allclose(column, 100 * Weights().of(channels, unseen), atol=0.051)


def test_every_weight_is_shown() -> None:
    weights = re.findall(r"`scoring\.Weights\.(\w+)`", section("detection.md", "One score"))
    assert sorted(weights) == sorted(f.name for f in fields(Weights))


def bytes_of_each_field(served: Model) -> list[int]:
    each = [int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize for field in layout(served).values()]
    return [*each, row_bytes(served)]


def growing_by(fixed: int, a_channel: int) -> str:
    return " + ".join([str(fixed)] * (fixed > 0) + [f"{a_channel} C"] * (a_channel > 0)) or "0"


def test_the_table_of_a_sensors_state_is_its_layout() -> None:
    one, two, three = (bytes_of_each_field(model(channels, hidden=32, window=256)) for channels in (1, 2, 3))
    many = [growing_by(a - 2 * (b - a), b - a) for a, b in zip(two, three, strict=True)]
    names = [*layout(model()), "all"]
    shown = [(row[0], row[2], row[3]) for row in table(section("detection.md", "The state of a sensor"), "field")]
    assert shown == list(zip(names, map(str, one), many, strict=True))


@pytest.mark.parametrize("example", blocks(section("alerts.md", "An alert"), "json"))
def test_the_example_of_an_alert_is_one_to_the_last_field(example: str) -> None:
    alert = decode_alert(example.encode())
    assert json.loads(encode_alert(alert)) == json.loads(example)
    assert alert.alert_id == alert_id(alert.sensor, alert.kind, alert.channel, alert.start)
    assert alert.detection_delay_ms == ((alert.last - alert.start) // 1000 if alert.state is State.FIRING else None)


def test_every_field_of_an_alert_is_explained() -> None:
    page = section("alerts.md", "An alert")
    assert sorted(named(page, "field")) == sorted(f.name for f in fields(Alert))
    assert sorted(named(page, "field of `evidence`")) == sorted(f.name for f in fields(Evidence))


@pytest.mark.parametrize(
    ("heading", "column", "words"),
    [
        ("Kinds", "kind", Kind),
        ("States", "state", State),
        ("Severities", "severity", Severity),
        ("Resolutions", "resolution", Resolution),
        ("Readings", "quality", Quality),
        ("Dead letters", "reason", Reason),
    ],
)
def test_every_word_an_operator_may_meet_is_explained(heading: str, column: str, words: type[StrEnum]) -> None:
    tables = section("alerts.md", heading).rsplit(f"| {column} |", maxsplit=1)
    assert sorted(named(f"| {column} |{tables[1]}", column)) == sorted(words)


def test_every_reason_to_ignore_a_reading_is_explained() -> None:
    assert sorted(named(section("alerts.md", "Ignored readings"), "reason")) == sorted(IGNORED)


@pytest.mark.parametrize("example", blocks(section("alerts.md", "Readings"), "json"))
def test_the_examples_of_a_reading_are_readings(example: str) -> None:
    assert JsonReadings().decode([Record("sensor.readings", 0, 0, 0, None, example.encode())]).rejected == []


def test_the_example_of_a_dead_letter_is_what_its_payload_comes_to() -> None:
    page = section("alerts.md", "Dead letters")
    letter = json.loads(blocks(page, "json")[0])
    message = Record(letter["topic"], letter["partition"], letter["offset"], 0, None, letter["payload"].encode())
    (refused,) = JsonReadings().decode([message]).rejected
    assert json.loads(encode_dead_letter(refused)[0]) == letter
    assert named(page, "field") == list(letter)


def test_the_example_of_a_score_has_the_fields_of_one() -> None:
    served, batch = model(), stream(waves(1, 1))
    _, message = next(encode_scores(Scored(served, batch, Detector(served).step(batch))))
    [example] = blocks(section("alerts.md", "Scores"), "json")
    assert list(json.loads(example)) == list(json.loads(message))


@pytest.mark.parametrize("example", blocks(section("data.md", "DATA"), "csv"))
def test_the_examples_of_history_can_be_read(example: str, tmp_path: Path) -> None:
    path = tmp_path / "pump-7.csv"
    path.write_text(example, encoding="utf-8")
    assert sum(map(len, read(path))) >= 1


def test_the_example_of_sensors_csv_can_be_read_and_its_columns_are_explained(tmp_path: Path) -> None:
    page = section("data.md", "sensors.csv")
    (tmp_path / "sensors.csv").write_text(blocks(page, "csv")[0], encoding="utf-8")
    assert len(read_sensors_csv(tmp_path / "sensors.csv")) == 3
    assert named(page, "column") == list(COLUMNS)


def test_every_field_of_a_manifest_is_explained() -> None:
    page = section("data.md", "A bundle")
    assert named(page, "field of the manifest") == list(bundle.Manifest.__struct_fields__)
    assert {bundle.MANIFEST, bundle.WEIGHTS, bundle.SENSORS, bundle.GOLDEN, bundle.SERVING} <= set(named(page, "file"))


def test_every_figure_of_an_evaluation_is_explained() -> None:
    page = section("evaluation.md", "The figures")
    assert sorted(named(page, "field of the JSON")) == sorted(f.name for f in fields(Figures))
    assert named(page, "field of `deployed` and `oracle`") == [f.name for f in fields(EventFigures)]
    assert named(page, "field of `budget`") == [f.name for f in fields(BudgetFigures)]


def test_every_file_that_a_replay_leaves_is_explained() -> None:
    shown = named(section("data.md", "What a replay leaves"), "in SCORES")
    assert shown == ["<sensor>.csv", f"{replay_folder.SIGNALS}/<sensor>.parquet", replay_folder.RUN]


def test_the_table_of_faults_is_that_of_the_tests(pytestconfig: pytest.Config) -> None:
    shown = {row._replace(seen="") for row in rows_of(text("faults.md"))}
    ours = set(pytestconfig.stash[TABLE].collected)
    assert ours <= shown, "run make faults"
    if pytestconfig.args_source is not pytest.Config.ArgsSource.ARGS:  # the whole suite
        assert ours == shown, "run make faults"
