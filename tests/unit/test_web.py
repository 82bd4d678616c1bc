"""What the service answers over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette

from pipeline.settings_schema import HttpSettings
from pipeline.status import Status
from pipeline.telemetry import METRIC_NAMES, Telemetry
from pipeline.web import HEALTHY_SECONDS, Web, WebError, application
from tests.contract.source_and_sink import ALERT


@dataclass
class Time:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """Asks the application without a socket."""

    app: Starlette

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service") as client:
                return await client.get(path)

        return asyncio.run(ask())


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def status(clock: Time) -> Status:
    return Status(clock)


@pytest.fixture
def client(status: Status) -> Client:
    return Client(application(status, Telemetry().registry))


@contextmanager
def answering(status: Status, known: dict[str, object]) -> Iterator[None]:
    """A loop that comes round now and then."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            status.answer(lambda sensor: known if sensor == "plant1/pump 7" else None)
            time.sleep(0.01)

    thread = threading.Thread(target=loop)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_it_is_healthy_as_long_as_the_loop_gives_signs_of_life(client: Client, status: Status, clock: Time) -> None:
    clock.now = HEALTHY_SECONDS
    assert client.get("/healthz").status_code == 200
    clock.now += 1
    assert client.get("/healthz").status_code == 503
    status.wait("the broker does not acknowledge")
    assert client.get("/healthz").status_code == 200, "a loop that waits is alive"


def test_it_is_ready_once_it_waits_for_nothing(client: Client, status: Status) -> None:
    assert client.get("/readyz").status_code == 503
    status.wait("partitions [3] are being restored")
    assert client.get("/readyz").json() == {"ready": False, "waiting_for": "partitions [3] are being restored"}
    status.waiting_for = ""
    assert client.get("/readyz").status_code == 200


def test_open_alerts_are_told_as_they_are_published(client: Client, status: Status) -> None:
    assert client.get("/alerts").json() == []
    status.open_alerts = (ALERT, ALERT)
    assert [alert["alert_id"] for alert in client.get("/alerts").json()] == [ALERT.alert_id] * 2


def test_a_sensor_is_described_by_the_loop_that_owns_it(client: Client, status: Status) -> None:
    with answering(status, {"sensor": "plant1/pump 7", "score": float("nan")}):
        assert client.get("/sensors/plant1/pump%207").json() == {"sensor": "plant1/pump 7", "score": None}
        unknown = client.get("/sensors/nobody")
    assert (unknown.status_code, "nobody" in unknown.json()["error"]) == (404, True)


def test_a_loop_that_does_not_come_round_is_an_answer_too(
    client: Client, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.web.ANSWER_SECONDS", 0.05)
    assert client.get("/sensors/pump").status_code == 503
    status.answer(lambda sensor: pytest.fail(f"nobody waits for {sensor} any more"))


def test_the_metrics_are_those_that_are_named(client: Client) -> None:
    families = {line.split()[2] for line in client.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in families if not name.endswith("_created")} == set(METRIC_NAMES)


def test_it_serves_on_loopback_on_a_thread_of_its_own() -> None:
    web = Web(application(Status(), Telemetry().registry), HttpSettings(port=0))
    web.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/healthz", timeout=5) as answer:
        assert json.load(answer)["healthy"]
    web.stop()


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(WebError, match=rf"127\.0\.0\.1:{port}.*set http\.host or http\.port"):
            Web(application(Status(), Telemetry().registry), HttpSettings(port=port))
