"""`foreshock demo` from nothing to its verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 12


@pytest.mark.timeout(280)
def test_the_demo_trains_streams_alerts_and_judges_itself(tmp_path: Path) -> None:
    verdict_file, picture = tmp_path / "verdict.json", tmp_path / "demo.svg"
    words = ["demo", "--duration", str(SECONDS), "--sensors", "4", "--seed", "1"]
    files = ["--json", str(verdict_file), "--picture", str(picture)]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipeline.cli", *words, *files], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    verdict = json.loads(verdict_file.read_text())
    assert set(verdict) == {
        "broker", "readings", "seconds", "latency_ms", "faults", "false_alarms", "false_alarms_per_10k", "control",
    }  # fmt: skip
    assert verdict["faults"]["injected"] > 0
    assert verdict["faults"]["found"] > 0
    assert verdict["readings"] > 1000 * SECONDS
    assert "firing" in ended.stdout
    assert "EWMA" in ended.stdout
    assert picture.read_text().startswith("<svg")
