"""What serving loads: nothing that only training needs, and the core nothing but numpy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeline.cli import COMMANDS, app

TRAINING_ONLY = ("tensorflow", "keras", "sklearn", "pyarrow", "matplotlib", "training")
LOADED = "import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
CORE = (
    "alerting", "alerts", "detector", "engine", "events", "lstm", "model", "novelty", "quality", "readings",
    "reporting", "scaling", "scoring", "table", "tails", "thresholds",
)  # fmt: skip


def loaded_by(module: str) -> set[str]:
    """The top-level packages that a fresh interpreter has after importing this module."""
    code = LOADED.format(module=module)
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["pipeline.app", "pipeline.cli"])
def test_serving_loads_nothing_that_only_training_or_the_compiled_form_needs(module: str) -> None:
    assert loaded_by(module).isdisjoint((*TRAINING_ONLY, "numba", "llvmlite"))


def test_the_service_starts_without_what_other_commands_need() -> None:
    code = (
        "import sys; from pipeline.cli import main; sys.argv = ['foreshock', 'run']\n"
        "try: main()\n"  # ends with a sentence about its settings, once it has loaded everything
        "except SystemExit: print(*sys.modules)"
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("FORESHOCK_", "KAFKA_"))}
    command = [sys.executable, "-c", code]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True, env=ours).stdout.split())
    commands = {name for name in loaded if name.startswith("pipeline.cli.")}
    assert {"pipeline.app", "pipeline.settings"} <= loaded
    assert commands == {"pipeline.cli.service", "pipeline.cli.words"}
    others = {"pipeline.doctor", "pipeline.demo", "pipeline.replay", "pipeline.adapters.files", "rich.progress"}
    assert loaded.isdisjoint({*TRAINING_ONLY, *others, "numba", "llvmlite", "confluent_kafka"})


def test_every_command_of_the_table_is_there() -> None:
    for words in COMMANDS:
        assert CliRunner().invoke(app, [*words.split(), "--help"]).exit_code == 0, words


def test_the_core_loads_numpy_and_the_standard_library() -> None:
    ours = loaded_by(", ".join(f"pipeline.core.{name}" for name in CORE))
    foreign = {name for name in ours - set(sys.stdlib_module_names) if not name.startswith("_")}
    before = {name for name in loaded_by("numpy") - set(sys.stdlib_module_names) if not name.startswith("_")}
    assert foreign - before == {"pipeline"}


def test_a_word_that_is_nearly_a_command_is_answered_with_those_it_may_be() -> None:
    assert "Did you mean 'train', 'retrain'?" in " ".join(CliRunner().invoke(app, ["trian"]).output.split())
