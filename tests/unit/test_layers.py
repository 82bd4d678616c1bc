"""What serving loads: nothing that only training needs, and the core nothing but numpy."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_the_core_loads_numpy_and_the_standard_library() -> None:
    ours = loaded_by(", ".join(f"pipeline.core.{name}" for name in CORE))
    foreign = {name for name in ours - set(sys.stdlib_module_names) if not name.startswith("_")}
    before = {name for name in loaded_by("numpy") - set(sys.stdlib_module_names) if not name.startswith("_")}
    assert foreign - before == {"pipeline"}
