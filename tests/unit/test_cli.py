"""The batch commands as a person types them: exit codes, sentences, files; never a traceback."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from pipeline import bundle
from pipeline.cli import app
from pipeline.core.readings import SECOND

QUICK = ("--updates", "20", "--hidden", "4")

START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * SECOND
Invoke = Callable[..., Result]


@pytest.fixture
def foreshock() -> Invoke:
    def invoke(*words: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def stamp(row: int) -> str:
    return f"2026-01-{1 + row // 1440:02d}T{row // 60 % 24:02d}:{row % 60:02d}:00Z"


def waves(rows: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    values = 20 + 3 * np.sin(np.arange(rows) / 9) + 0.1 * rng.standard_normal(rows)
    return [f"{stamp(i)},{v:.4f}" for i, v in enumerate(values)]


def test_train_replay_and_evaluate_work_on_a_folder_of_files(foreshock: Invoke, tmp_path: Path) -> None:
    for name in ("pumps/a", "pumps/b"):
        write(tmp_path / f"data/{name}.csv", "timestamp,flow", waves(900, seed=len(name)))
    trained = foreshock("train", tmp_path / "data", "--model", tmp_path / "models", "--fraction", "0.7", *QUICK)
    assert trained.exit_code == 0, trained.output
    (group,) = bundle.load_all(tmp_path / "models").values()
    assert group.sensors.names == ("pumps/a", "pumps/b")
    folder = tmp_path / "models" / group.group / "1"
    assert {p.name for p in folder.iterdir()} == {
        "manifest.json", "weights.safetensors", "sensors.safetensors", "golden.npz", "network.keras", "report.html",
    }  # fmt: skip

    replayed = foreshock(
        "replay", tmp_path / "data", "--model", tmp_path / "models", "--scores", tmp_path / "scores",
        "--alerts", tmp_path / "alerts.jsonl", "--budget", "20/10000/sensor",
    )  # fmt: skip
    assert replayed.exit_code == 0, replayed.output
    assert "1260 of 1800 rows were trained on" in replayed.output
    rows = list(csv.DictReader((tmp_path / "scores/pumps/a.csv").read_text().splitlines()))
    assert len(rows) == 900
    assert set(rows[0]) == {"timestamp", "score", "alert"}
    assert all(np.isfinite(float(row["score"])) for row in rows)

    left = {path.relative_to(tmp_path / "scores").as_posix() for path in (tmp_path / "scores").rglob("*.*")}
    assert left == {
        "pumps/a.csv", "pumps/b.csv", "_replay.json", "_signals/pumps/a.parquet", "_signals/pumps/b.parquet",
    }  # fmt: skip
    run = json.loads((tmp_path / "scores/_replay.json").read_text())
    assert (run["budget"], run["fleet"]) == ("20/10000/sensor", 2)
    assert run["groups"][group.group] == {
        "model": group.ref.name, "version": "1", "sha256": group.ref.sha256, "interval_us": 60 * SECOND,
        "threshold": pytest.approx(-np.log10(0.002)), "allowed": 0.002, "sensors": ["pumps/a", "pumps/b"],
    }  # fmt: skip

    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"pumps/a": [[stamp(700), stamp(720)]]}))
    judged = foreshock("evaluate", tmp_path / "scores", labels, "--no-vus", "--report", tmp_path / "report.html")
    assert judged.exit_code == 0, judged.output
    assert json.loads(judged.stdout)["budget"]["allowed"] == pytest.approx(0.002 * (900 - 21))
    assert "what it says" in judged.stderr
    report = (tmp_path / "report.html").read_text()
    assert report.startswith("<!DOCTYPE html>")
    assert ">flow</text>" in report


def test_what_is_not_installed_is_named_with_its_extra(
    foreshock: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "training"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    judged = foreshock("evaluate", tmp_path, tmp_path / "labels.json")
    assert judged.exit_code == 1
    assert "matplotlib" in judged.output
    assert 'pip install ".[evaluate]"' in judged.output


def test_evaluate_shows_a_table_on_a_terminal_and_json_where_it_is_asked_for(
    foreshock: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = write(
        tmp_path / "scores/a.csv", "timestamp,score,alert", [f"{stamp(i)},{i % 7},{i % 7 // 6}" for i in range(9)]
    )
    labels = write(tmp_path / "labels.json", json.dumps({"a": [[stamp(5), stamp(7)]]}), [])
    words = ("evaluate", scores.parent, labels, "--no-vus")
    terminal = io.StringIO()
    monkeypatch.setattr(
        "pipeline.cli.judge.out", Console(file=terminal, force_terminal=True, width=120, color_system=None)
    )
    assert foreshock(*words, "--json", tmp_path / "figures.json").exit_code == 0
    assert "1 of 1 labelled window found in 1 series, with 0 false alarms." in terminal.getvalue()
    assert "{" not in terminal.getvalue()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["deployed"]["found"] == 1
    terminal.seek(0)
    terminal.truncate()
    assert "1 of 1" in foreshock(*words, "--json", "-").stderr
    assert json.loads(terminal.getvalue()) == figures


def test_a_verified_model_says_so_and_a_damaged_one_says_what_is_wrong(foreshock: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", "timestamp,value", waves(200))
    assert foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *QUICK).exit_code == 0
    (folder,) = (tmp_path / "models").glob("*/1")
    assert "sound" in foreshock("model", "verify", folder).output
    assert "yes" in foreshock("model", "list", tmp_path / "models").output
    weights = folder / bundle.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    damaged = foreshock("model", "verify", folder)
    assert damaged.exit_code == 1
    assert "SHA-256" in damaged.output


ODD = {
    "an empty folder": ({}, 1, "no .csv or .parquet file"),
    "a file with one row": ({"a": ("timestamp,value", [f"{stamp(0)},1.0"])}, 1, "60 readings"),
    "a channel of nothing": ({"a": ("timestamp,value", [f"{stamp(i)}," for i in range(200)])}, 1, "60 readings"),
    "text among numbers": ({"a": ("timestamp,value", [*waves(100), f"{stamp(100)},broken"])}, 1, "broken"),
    "no time stamps": ({"a": ("colour,value", ["red,1.0"] * 100)}, 1, "time"),
}


@pytest.mark.parametrize("case", ODD, ids=lambda name: name.replace(" ", "-"))
def test_train_ends_with_a_sentence_on(case: str, foreshock: Invoke, tmp_path: Path) -> None:
    files, exit_code, word = ODD[case]
    (tmp_path / "data").mkdir()
    for name, (header, rows) in files.items():
        write(tmp_path / f"data/{name}.csv", header, rows)
    result = foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *QUICK)
    assert result.exit_code == exit_code
    assert re.search(re.escape(word), result.output), result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("timestamp,value", [f"{stamp(i)},7.5" for i in range(200)]),
        ("timestamp,flow,spare", [f"{line}," for line in waves(200)]),
    ],
    ids=["a constant channel", "an all-NaN channel beside a good one"],
)
def test_train_copes_with(header: str, rows: list[str], foreshock: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", header, rows)
    result = foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *QUICK)
    assert result.exit_code == 0, result.output


def test_a_stamp_from_the_far_future_and_a_sentinel_are_left_out_with_a_note(foreshock: Invoke, tmp_path: Path) -> None:
    rows = waves(300)
    rows[200] = f"2999-01-01T00:00:00Z,{20.0}"
    rows[210:230] = [f"{stamp(i)},3.4e38" for i in range(210, 230)]
    write(tmp_path / "data/a.csv", "timestamp,value", rows)
    result = foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *QUICK)
    assert result.exit_code == 0, result.output
    assert "1 readings stamped in the future and 20 values beyond 1e+37 left out" in result.output
    (model,) = bundle.load_all(tmp_path / "models").values()
    assert model.sensors.arrays["clock"][0, 0] < START + 86_400 * SECOND, "it learns and alerts from then on"


def test_files_with_different_channels_become_different_groups(foreshock: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", "timestamp,flow", waves(200))
    write(tmp_path / "data/b.csv", "timestamp,level", waves(200))
    assert foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *QUICK).exit_code == 0
    assert {m.channels for m in bundle.load_all(tmp_path / "models").values()} == {("flow",), ("level",)}


@pytest.mark.parametrize(
    "words",
    [
        ("--cell", "bidirectional"),
        ("--weights", "stolen"),
        ("--fraction", "2"),
        ("--layers", "4"),
    ],
    ids=lambda words: " ".join(words),
)
def test_words_that_make_no_sense_end_with_status_2(words: tuple[str, str], foreshock: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", "timestamp,value", waves(100))
    result = foreshock("train", tmp_path / "data", "--model", tmp_path / "models", *words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_budget_that_cannot_be_read_ends_with_status_2(foreshock: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "data/a.csv", "timestamp,value", waves(100))
    words = ("--model", tmp_path, "--scores", tmp_path, "--budget", "few")
    result = foreshock("replay", tmp_path / "data", *words)
    assert result.exit_code == 2
    assert "1/week/sensor" in result.output


def test_the_plant_writes_a_history_that_train_reads(foreshock: Invoke, tmp_path: Path) -> None:
    assert foreshock("plant", "--history", tmp_path / "data", "--sensors", "1").exit_code == 0
    words = ("--model", tmp_path / "models", "--max-rows", "200", *QUICK)
    assert foreshock("train", tmp_path / "data", *words).exit_code == 0
