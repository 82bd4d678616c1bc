"""What the service answers over HTTP: metrics, liveness, readiness, open alerts, one sensor."""

from __future__ import annotations

import asyncio
import socket
import threading

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.codecs.json import encode_alert
from pipeline.settings_schema import HttpSettings
from pipeline.status import Status

HEALTHY_SECONDS = 30.0  # without a sign of life; longer than the longest turn, shorter than anybody's patience
ANSWER_SECONDS = 2.0  # for the loop to come round and answer a question
JSON = "application/json"


class WebError(Exception):
    """The address cannot be listened on, and what to do."""


def application(status: Status, registry: CollectorRegistry) -> Starlette:
    """The routes; each reads what the loop has left in `status`."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        silence = status.silence_seconds
        alive = silence <= HEALTHY_SECONDS
        return _json({"healthy": alive, "seconds_since_heartbeat": round(silence, 3)}, 200 if alive else 503)

    async def readyz(_: Request) -> Response:
        waiting_for = status.waiting_for
        return _json({"ready": not waiting_for, "waiting_for": waiting_for}, 503 if waiting_for else 200)

    async def alerts(_: Request) -> Response:
        listed = b",".join(map(encode_alert, status.open_alerts))
        return Response(b"[" + listed + b"]", media_type=JSON)

    async def sensor(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            known = await asyncio.wait_for(asyncio.wrap_future(status.ask(name)), ANSWER_SECONDS)
        except TimeoutError:
            return _json({"error": f"the loop has not answered within {ANSWER_SECONDS:.0f} s; see /readyz"}, 503)
        if known is None:
            return _json({"error": f"no reading of sensor {name} has been seen by this process"}, 404)
        return _json(known)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/alerts", alerts),
            Route("/sensors/{name:path}", sensor),
        ]
    )


class Web:
    """The application on a thread of its own; the loop keeps the main one."""

    def __init__(self, app: Starlette, settings: HttpSettings) -> None:
        """Take the address at once: WebError here is better than a service that nobody can watch."""
        self._socket = listen(settings)
        self.host, self.port = self._socket.getsockname()[:2]
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="web", daemon=True
        )

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered, and close."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()


def listen(settings: HttpSettings) -> socket.socket:
    """A socket on the address of the settings; WebError where that is taken or not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise WebError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}; set http.host or http.port"
        ) from error
    return listening


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content, enc_hook=str), status_code=status, media_type=JSON)
