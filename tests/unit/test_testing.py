"""The public module for tests of a configuration: points that are passed, and scripts that are played."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import bundle, testing
from pipeline.core.alerts import Kind, State
from pipeline.core.readings import SECOND, Reading, Reason, Record
from pipeline.settings import Settings, load
from pipeline.testing import ABORT, AWAY, END, FENCED, PAUSE, REDELIVER, Played, play
from tests.models import START, model, stream, waves
from tests.service import saved

DOC = Path(__file__).parents[2] / "docs" / "testing.md"


def settings(**others: Any) -> Settings:
    detection = {"budget": "1/100/sensor"} | others
    return Settings.model_validate({"kafka": {"bootstrap_servers": "localhost:9092"}, "detection": detection})


@pytest.fixture(scope="module")
def readings() -> list[Reading]:
    batch = stream(waves(3, 400), dropped=0.02)
    times, values = batch.times.tolist(), batch.values[:, 0].tolist()
    return [Reading(s, t, {"c0": v}) for s, t, v in zip(batch.sensors, times, values, strict=True)]


def played(script: list[Any], **others: Any) -> Played:
    return play(settings(**others), script, partitions=2, models={"g": model()})


@pytest.fixture(scope="module")
def calm(readings: list[Reading]) -> Played:
    return played(readings)


def test_a_calm_script_says_what_there_is_to_say(calm: Played, readings: list[Reading]) -> None:
    assert {alert.kind for alert in calm.alerts} >= {Kind.FORECAST, Kind.STUCK, Kind.GAP}
    assert (calm.scored, calm.replayed, calm.starts, calm.dead_letters) == (len(readings), 0, 1, [])


@pytest.mark.parametrize("fault", [ABORT, END, FENCED, AWAY(90)], ids=str)
def test_a_fault_anywhere_changes_no_alert(calm: Played, readings: list[Reading], fault: object) -> None:
    script = [*readings[:470], fault, *readings[470:800], fault, *readings[800:]]
    disturbed = played(script)
    assert disturbed.said == calm.said
    assert disturbed.starts == (3 if fault in (ABORT, END) else 1)
    assert (disturbed.replayed > 0) == (fault in (ABORT, FENCED))


def test_what_a_producer_sends_again_is_counted_and_never_scored_twice(calm: Played, readings: list[Reading]) -> None:
    disturbed = played([*readings[:600], REDELIVER(40), *readings[600:]])
    assert disturbed.said.keys() == calm.said.keys()
    assert sum(disturbed.ignored.values()) == sum(calm.ignored.values()) + 40


def test_a_pause_is_a_gap_of_every_sensor_and_ends_with_its_next_reading(readings: list[Reading]) -> None:
    later = [r._replace(time=r.time + 3600 * SECOND) for r in readings[600:]]
    paused = played([*readings[:600], PAUSE(3600), *later])
    after = [a for a in paused.alerts if a.kind is Kind.GAP and a.last >= readings[599].time]
    assert sum(a.state is State.FIRING for a in after) >= 3
    assert played([*readings[:600], PAUSE(3600)], gap=False).said.keys() < paused.said.keys()


def test_nonsense_comes_to_the_dead_letters(readings: list[Reading]) -> None:
    ahead = Record("", 1, 0, START, b"s0", b'{"sensor":"s0","time":"2100-01-01T00:00:00Z","values":{"c0":1}}')
    letters = played([b"{", readings[0], ahead, ABORT, b"[]"]).dead_letters
    assert sorted(letter.reason for letter in letters) == [Reason.FUTURE, Reason.SCHEMA, Reason.UNREADABLE]


def test_the_settings_are_the_ones_that_count(readings: list[Reading]) -> None:
    assert Kind.STUCK not in {alert.kind for alert in played(readings, stuck=False).alerts}
    with pytest.raises(bundle.BundleError, match="no model bundle serves here"):
        play(settings(), readings)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "models")
    (tmp_path / "foreshock.toml").write_text('[kafka]\nbootstrap_servers = "localhost:9092"\n')
    (tmp_path / "history.csv").write_text(
        "sensor,timestamp,value\n" + "".join(f"s{i % 2},{START // SECOND + i * 60},{i % 7}\n" for i in range(400))
    )
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    exec(compile(example, str(DOC), "exec"), defined)  # noqa: S102 - it is what the page tells people to run
    tests = [name for name in defined if name.startswith("test_")]
    assert tests
    for name in tests:
        defined[name]()


def test_every_word_of_a_script_is_explained() -> None:
    words = re.findall(r"^\| `(?P<word>[A-Z]+)", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(words) == sorted(word for word in testing.__all__ if word.isupper() and word != "POINTS")


# -- points


def passed(point: str) -> Any:
    return getattr(*testing.POINTS[point][-1])


@pytest.fixture(params=testing.POINTS)
def point(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of them, unwrapped again at the end."""
    for owner, name in testing.POINTS[request.param]:
        monkeypatch.setattr(owner, name, lambda *args, **words: (args, words))
    return str(request.param)


def test_the_kill_comes_after_so_many_passes(point: str) -> None:
    killed: list[str] = []
    testing.kill_at(point, 2, lambda: killed.append(point))
    assert passed(point)(1, two=2) == ((1,), {"two": 2})
    assert killed == []
    passed(point)()
    passed(point)()
    assert killed == [point]


def test_every_pass_from_there_on_takes_longer(point: str) -> None:
    took: list[float] = []
    testing.pause_at(point, 2, 0.5, took.append)
    for _ in range(3):
        passed(point)()
    assert took == [0.5, 0.5]


def test_a_point_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match="lunch"):
        testing.kill_at("lunch", 1)
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.testing", "lunch:1", "run"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "'lunch' is no point of a turn; there are polled, stepped" in refused.stderr


def test_load_is_how_a_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "foreshock.toml").write_text('[kafka]\nbootstrap_servers = "localhost:9092"\n')
    assert load(tmp_path / "foreshock.toml", {}).kafka.bootstrap_servers == "localhost:9092"
