"""The compiled form is there before the first reading and kept from start to start; where it cannot be, it is said."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numba
import pytest
from structlog.testing import capture_logs

from pipeline import app, fast
from pipeline.app import App
from pipeline.doctor import Check, _kernel
from pipeline.fast.compile import folder, kept
from pipeline.fast.walk import walk
from pipeline.settings_schema import Settings
from tests import models

Kept = Callable[[Path], None]
PATIENCE_SECONDS = 30.0


@pytest.fixture
def keep_in(monkeypatch: pytest.MonkeyPatch) -> Kept:
    def keep(place: Path) -> None:
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(place))

    return keep


def settings(kernel: str) -> Settings:
    return Settings.model_validate(
        {"kafka": {"bootstrap_servers": "localhost:9092"}, "http": {"port": 0}, "kernel": kernel}
    )


def started(kernel: str) -> list[dict[str, object]]:
    """What the service logs of its kernel before it serves."""
    with capture_logs() as logs:
        made = App(settings(kernel), {"g": models.model()})
        assert made._compiled()
    made.web.stop()
    return [dict(line) for line in logs if str(line["event"]).startswith("kernel")]


def test_the_kernel_is_ready_before_the_service_is_and_the_log_says_how_long_it_took(
    keep_in: Kept, tmp_path: Path
) -> None:
    keep_in(tmp_path / "new")
    compiles, ready = started("numba")
    assert compiles["event"] == "kernel compiles"
    assert ready["event"] == "kernel ready"
    assert str(ready["kernel"]).startswith("numba ")
    assert ready["kept"] == str(tmp_path / "new")
    assert isinstance(ready["seconds"], float)
    assert started("numpy") == []


def test_while_the_kernel_compiles_the_service_is_alive_and_says_why_it_is_not_ready_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiling, let_go = threading.Event(), threading.Event()

    def compiles(_: fast.Kernel) -> None:
        compiling.set()
        let_go.wait()

    monkeypatch.setattr(fast, "walkers", compiles)
    service = App(settings("numba"), {"g": models.model()})
    running = threading.Thread(target=service.run)
    running.start()
    try:
        assert compiling.wait(PATIENCE_SECONDS)
        assert answer(service, "/healthz") == (200, {"healthy": True})
        assert answer(service, "/readyz") == (503, {"ready": False, "waiting_for": "the kernel compiles"})
    finally:
        service.stop()
        running.join(PATIENCE_SECONDS)
        let_go.set()
    assert not running.is_alive()


def test_a_kernel_that_does_not_load_ends_the_service_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.fast.walker", None)
    with pytest.raises(fast.KernelError, match='or set kernel to "numpy"'):
        App(settings("numba"), {"g": models.model()}).run()


def answer(service: App, path: str) -> tuple[int, dict[str, object]]:
    """The status and what is said, but for times."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.web.port}{path}", timeout=PATIENCE_SECONDS) as found:
            status, body = found.status, found.read()
    except urllib.error.HTTPError as says_no:
        status, body = says_no.code, says_no.read()
    return status, {name: said for name, said in json.loads(body).items() if "seconds" not in name}


def test_no_reading_waits_for_the_compiler() -> None:
    with pytest.raises(TypeError, match="No matching definition"):
        walk(*([None] * 21))  # type: ignore[arg-type] # what it was not compiled for is refused
    assert len(walk.signatures) == 1  # type: ignore[attr-defined]


def test_a_service_that_cannot_keep_its_kernel_compiles_at_every_start_and_says_so(
    keep_in: Kept, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    keep_in(tmp_path / "file" / "under")
    assert folder() is None

    @kept(numba.types.int64)
    def twice(x: int) -> int:
        return 2 * x

    assert twice(21) == 42
    _, ready, warning = started("numba")
    assert ready["kept"] == ""
    assert "NUMBA_CACHE_DIR" in str(warning["remedy"])


def test_machine_code_is_kept_where_only_this_user_may_write(keep_in: Kept, tmp_path: Path) -> None:
    keep_in(tmp_path / "deep" / "cache")
    assert folder() == tmp_path / "deep" / "cache"
    assert (tmp_path / "deep" / "cache").stat().st_mode & 0o077 == 0

    @kept(numba.types.int64)
    def thrice(x: int) -> int:
        return 3 * x

    assert thrice(14) == 42
    assert list((tmp_path / "deep" / "cache").rglob("*.nbi"))


def test_machine_code_that_others_may_have_written_is_not_run(keep_in: Kept, tmp_path: Path) -> None:
    keep_in(tmp_path)
    assert folder() == tmp_path
    (ours,) = tmp_path.iterdir()
    ours.chmod(0o777)
    assert folder() is None


def test_numba_that_does_not_load_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.fast.walker", None)
    with pytest.raises(fast.KernelError, match=r"does not load here .*--force-reinstall .* or set kernel to \"numpy\""):
        fast.walkers("numba")
    failed = _kernel(settings("numba"))
    assert not failed.ok
    assert "does not load" in failed.detail


def test_doctor_says_what_computes_the_scores(keep_in: Kept, tmp_path: Path) -> None:
    assert _kernel(settings("numpy")) == Check("kernel", True, app.kernel(settings("numpy")).split(",")[0])
    keep_in(tmp_path)
    assert f"kept in {tmp_path}" in _kernel(settings("numba")).detail
    (tmp_path / "file").touch()
    keep_in(tmp_path / "file")
    assert "compiled at every start" in _kernel(settings("numba")).detail
