"""The composition root: settings in, the long-running service out. Nothing else here decides who works with whom."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial

import numpy as np
import stamina
import structlog
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle, fast
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.adapters.kafka_checkpoints import TopicCheckpoints
from pipeline.adapters.kafka_clients import Client, client
from pipeline.adapters.kafka_commits import CHECKPOINTS, DELIVERIES
from pipeline.adapters.kafka_connection import KafkaAwayError
from pipeline.adapters.kafka_member import GroupMember
from pipeline.adapters.kafka_sink import KafkaSink
from pipeline.core.model import Model
from pipeline.crowd import Crowd
from pipeline.groups import Groups
from pipeline.ports import CheckpointStore, PartitionsChangedError
from pipeline.progress import Pace, Turn
from pipeline.recovery import Recovery
from pipeline.runner import Runner
from pipeline.serving import serving
from pipeline.settings_schema import Settings
from pipeline.status import Status
from pipeline.telemetry import Telemetry, configure_logging
from pipeline.web import Web, application

DRAIN_SECONDS = 10.0  # from the signal to the end, whatever the broker does
LET_GO_SECONDS = 20.0  # for all partitions that a rebalance takes away: the other members wait
COUNT_SECONDS = 1.0  # between two looks at every sensor, for metrics and /alerts
BEAT_SECONDS = 1.0  # between two signs of life while the kernel compiles
RETRY_SECONDS = 1.0  # between two attempts to reach a broker
YOUNG_OBJECTS = 100_000  # between two collections: a poll's records come and go as one, and are no cycles

log = structlog.get_logger(__name__)


class App:
    """The service. `run` blocks; `stop` and `reload` may come from any thread."""

    _groups: Groups  # once the kernel is ready

    def __init__(self, settings: Settings, models: Mapping[str, Model]) -> None:
        self.settings, self._serving = settings, serving(settings, models)
        self.status, self.telemetry = Status(), Telemetry()
        self.web = Web(application(self.status, self.telemetry.registry), settings.http)
        self._stopping = threading.Event()
        self._watchdog = threading.Timer(DRAIN_SECONDS, _cut_off)
        self._reload = threading.Event()
        self._crowd = Crowd()
        self._count_due = 0.0

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`: finish the turn, commit, checkpoint, leave the group.

        SIGHUP takes up the serving models. A drain that a dead broker blocks or cuts short ends with status 1.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
            signal.signal(signal.SIGHUP, lambda *_: self.reload())
        self.web.start()
        log.info("service started", http=f"{self.web.host}:{self.web.port}", groups=sorted(self._serving.models))
        try:
            with threadpool_limits(limits=1):  # the same readings give the same scores, bit by bit
                runner = self._connect() if self._compiled() else None
                if runner is not None:
                    self._serve(runner)
        finally:
            self._watchdog.cancel()
            self.web.stop()
        log.info("service ended")

    def stop(self) -> None:
        """Ask `run` to drain and return."""
        if self._stopping.is_set():
            return
        self._watchdog.daemon = True
        self._watchdog.start()
        self._stopping.set()

    def reload(self) -> None:
        """Ask for the serving version of each model to be taken up."""
        self._reload.set()

    def _compiled(self) -> bool:
        """Have the kernel ready, which may take a minute of being alive; False where the service was stopped meanwhile.

        Nothing is compiled later: no reading waits for it.
        """
        kernel = self.settings.kernel
        if kernel == "numpy":
            return True
        began = time.perf_counter()
        log.info("kernel compiles", kernel=kernel, takes="half a minute, or a moment where it was kept")
        ready: Future[object] = Future()
        threading.Thread(
            target=_settle, args=(ready, partial(fast.walkers, kernel)), name="kernel", daemon=True
        ).start()
        while not ready.done():
            if self._stopping.is_set():
                return False
            self.status.wait("the kernel compiles")
            wait([ready], BEAT_SECONDS)
        ready.result()
        _tell_of_kernel(kernel, time.perf_counter() - began)
        return True

    def _connect(self) -> Runner | None:
        """A runner on the cluster, however long that takes; None where the service was stopped meanwhile."""
        settings = self.settings
        self._groups = self._serving.groups()
        if settings.kafka.instance_id is None:
            effect = "after a crash the group waits for the session timeout, and for what was left open"
            log.info("member without a name", effect=effect, remedy="set kafka.instance_id")
        for attempt in stamina.retry_context(
            on=KafkaAwayError, attempts=None, timeout=None, wait_initial=RETRY_SECONDS / 4, wait_max=RETRY_SECONDS
        ):
            with attempt:
                if self._stopping.is_set():
                    return None
                self.status.wait(f"no broker at {settings.kafka.bootstrap_servers} answers")
                source, sink, store = self._connected()
        pace = pace_of(settings)
        recovery = Recovery(self._groups, store, pace.topic, self._serving.fingerprint, kernel(settings))
        return Runner(self._groups, source, sink, recovery, pace, lambda: bundle.load_all(settings.model.dir))

    def _connected(self) -> tuple[GroupMember, KafkaSink, CheckpointStore]:
        """All three, or none of them."""
        settings = self.settings.kafka
        by = client(settings)
        with ExitStack() as opened:
            source = by.source(settings)
            opened.callback(source.close)
            try:
                sink = KafkaSink(settings, by.transactions(settings, DELIVERIES, source, self.status.wait))
                opened.callback(sink.close)
                store = self._store(by, source)
            except KafkaAwayError as why:
                self.status.wait(str(why))
                raise
            opened.pop_all()
        return source, sink, store

    def _store(self, by: Client, source: GroupMember) -> CheckpointStore:
        kept, settings = self.settings.checkpoints, self.settings.kafka
        if kept.store == "topic":
            transactions = by.transactions(settings, CHECKPOINTS, source, self.status.wait)
            return TopicCheckpoints(settings, transactions, self.status.wait)
        return FolderCheckpoints(kept.dir, kept.keep_days)

    def _serve(self, runner: Runner) -> None:
        gc.collect()
        gc.freeze()  # what is there now stays; a collection need not walk it again and again
        gc.set_threshold(YOUNG_OBJECTS)
        try:
            while not self._stopping.is_set():
                if self._reload.is_set():
                    self._reload.clear()
                    runner.take_up_models()
                self._report(runner, runner.turn())
            drained = runner.drain(DRAIN_SECONDS / 2)
        except PartitionsChangedError:
            log.error("the topic was widened", effect="what is done is committed and kept, then the service ends")
            runner.drain(DRAIN_SECONDS / 2)
            raise
        except BaseException:
            log.exception("service failed", effect="nothing more is committed; a restart goes on from the last commit")
            runner.abandon()
            raise
        if not drained:
            log.error("drain incomplete", effect="what was not committed is read again by the next member")
            raise SystemExit(1)

    def _report(self, runner: Runner, turn: Turn) -> None:
        self.telemetry.turned(turn, runner.partitions)
        self._crowd.turned(turn.stepped)
        self.status.waiting_for = turn.waiting_for
        self.status.beat()
        self.status.answer(self._groups.describe)
        if time.monotonic() >= self._count_due:
            self._count_due = time.monotonic() + COUNT_SECONDS
            self.status.open_alerts = tuple(runner.open_alerts())
            self.telemetry.counted(self._groups.census(), self.status.open_alerts)
            self.telemetry.serves((model.ref for model in self._groups.models.values()), self._groups.budgets)


def build(settings: Settings) -> App:
    """Load and check all that needs no broker; Bundle-, Data-, KafkaSetup- and WebError say what is wrong."""
    configure_logging(settings.logging)
    client(settings.kafka)
    return App(settings, bundle.load_all(settings.model.dir))


def pace_of(settings: Settings) -> Pace:
    """How the loop runs under these settings."""
    return Pace(
        topic=settings.kafka.topics.readings,
        poll_seconds=settings.kafka.poll_wait_seconds,
        commit_seconds=settings.kafka.commit_seconds,
        checkpoint_seconds=settings.checkpoints.every_seconds,
        let_go_seconds=min(LET_GO_SECONDS, settings.kafka.max_poll_interval_seconds / 2),
        catchup_after_seconds=settings.detection.catchup_after_seconds,
        scores=settings.kafka.topics.scores is not None,
    )


def kernel(settings: Settings) -> str:
    """What computes the scores: another library or processor may round the last digit differently."""
    blas = [found for found in threadpool_info() if found["user_api"] == "blas"]
    names = sorted({f"{b['internal_api']} {b['version']} {b.get('architecture', '')}".strip() for b in blas})
    return ", ".join(filter(None, [f"numpy {np.__version__}", *names, fast.recorded(settings.kernel)]))


def _settle(future: Future[object], work: Callable[[], object]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def _tell_of_kernel(kernel: fast.Kernel, seconds: float) -> None:
    kept = fast.kept_in(kernel)
    log.info("kernel ready", kernel=fast.recorded(kernel), seconds=round(seconds, 1), kept=kept)
    if not kept:
        effect, remedy = "every start compiles anew", "set NUMBA_CACHE_DIR to a folder that only this user may write to"
        log.warning("kernel not kept", effect=effect, remedy=remedy)


def _cut_off() -> None:
    log.error("drain cut off", seconds=DRAIN_SECONDS, effect="what was not committed is read again by the next member")
    os._exit(1)
