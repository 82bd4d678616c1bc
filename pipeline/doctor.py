"""What would keep the service from running, each with what to do: `foreshock doctor`."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import bundle, fast
from pipeline.adapters.checkpoints import KEPT
from pipeline.adapters.columns import DataError
from pipeline.adapters.kafka_admin import Survey, TopicState, survey
from pipeline.adapters.kafka_clients import client
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
from pipeline.adapters.sensors import read_sensors_csv
from pipeline.core.table import row_bytes
from pipeline.settings_schema import Settings
from pipeline.web import WebError, listen

SKEW_SECONDS = 5.0  # records that are further ahead of this machine's clock than this were stamped by a wrong one
FREE_BYTES = 1 * 2**30  # wanted on the disk of the checkpoints, beside those that are kept of every known sensor
DAY_MS = 86_400_000
NAME_BYTES = 150  # a sensor's name and its place in the index
PROCESS_BYTES = 200 * 2**20  # libraries, models, messages on their way
WORKING_SHARE = 1.5  # a partition twice while its checkpoint is written, or the largest field while the table grows
READINGS_PARTITIONS = 6  # members that can share the load, at most


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""  # what to do where it is not ok


def checks(settings: Settings, look: Callable[..., Survey] = survey, sensors: int | None = None) -> list[Check]:
    """Look at everything; what cannot be looked at is a failed check, not an error.

    `sensors`: whether so many of a group would fit this machine.
    """
    about_models, state_bytes = _models(settings)
    found = [*_kafka(settings, look), *about_models, *_sensors(settings)]
    if sensors is not None:
        found += _room(settings, sensors, machine_bytes())
    return [*found, _client(settings), _kernel(settings), _checkpoints(settings, state_bytes), _http(settings)]


def _kafka(settings: Settings, look: Callable[..., Survey]) -> Iterator[Check]:
    kafka = settings.kafka
    uses = {kafka.topics.readings: "READ", kafka.topics.alerts: "WRITE", kafka.topics.dead_letter: "WRITE"}
    if kafka.topics.scores is not None:
        uses[kafka.topics.scores] = "WRITE"
    of_checkpoints = kafka.topics.checkpoints if settings.checkpoints.store == "topic" else None
    if of_checkpoints is not None:
        uses[of_checkpoints] = "WRITE"
    try:
        seen = look(kafka, uses)
    except (KafkaAwayError, KafkaSetupError, OSError) as error:
        remedy = "start the broker, or correct kafka.bootstrap_servers and the security settings beside it"
        yield Check("broker", False, str(error), remedy)
        return
    yield Check("broker", True, f"{kafka.bootstrap_servers}, {seen.brokers} in the cluster")
    for topic, operation in uses.items():
        if topic == of_checkpoints:
            readings = seen.topics.get(kafka.topics.readings)
            wide = readings.partitions if readings is not None else READINGS_PARTITIONS
            yield _topic(topic, operation, seen, kafka.bootstrap_servers, wide, partial(_newest_kept, wide))
        else:
            wide = READINGS_PARTITIONS if operation == "READ" else 1
            yield _topic(topic, operation, seen, kafka.bootstrap_servers, wide, _kept)
    yield _clock(seen)


def _topic(
    topic: str,
    operation: str,
    seen: Survey,
    servers: str,
    partitions: int,
    kept: Callable[[str, TopicState], tuple[bool, str, str]],
) -> Check:
    """`partitions` it should have where it is to be created; `kept` judges what it keeps."""
    name, state = f"topic {topic}", seen.topics.get(topic)
    if state is None:
        command = f"kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions {partitions}"
        remedy = f"{command}; to try things out, foreshock doctor --create-topics"
        return Check(name, False, "does not exist, or may not be seen", remedy)
    detail = ", ".join(
        [f"{state.partitions} partitions", f"{state.replicas} replicas"]
        + [f"{key} {state.config[key]}" for key in ("cleanup.policy", "retention.ms") if key in state.config]
    )
    if state.operations is not None and operation not in state.operations:
        return Check(name, False, f"{detail}; {operation} is not allowed", f"grant {operation} on {topic} to this user")
    return Check(name, *kept(detail, state))


def _kept(detail: str, state: TopicState) -> tuple[bool, str, str]:
    if "compact" in state.config.get("cleanup.policy", ""):
        return False, detail, "set cleanup.policy=delete: compaction drops all but the last message of a sensor"
    retention = int(state.config.get("retention.ms", -1))
    if 0 <= retention < DAY_MS:
        return False, detail, "raise retention.ms to a day or more: what an outage outlasts is lost"
    return True, detail, ""


def _newest_kept(partitions: int, detail: str, state: TopicState) -> tuple[bool, str, str]:
    """For checkpoints."""
    if state.config.get("cleanup.policy") != "compact":
        return False, detail, "set cleanup.policy=compact: the newest checkpoint must stay however old it is"
    if state.partitions < partitions:
        return False, detail, f"give it {partitions} partitions, as many as the readings have"
    return True, detail, ""


def _clock(seen: Survey) -> Check:
    if seen.newest is None:
        return Check("clock", True, "no record yet to compare this machine's clock with")
    ahead = seen.newest - time.time()
    if ahead > 0:
        detail = f"the newest record is stamped {ahead:.1f} s ahead of this machine's clock"
    else:
        detail = f"not behind the records; the newest reading came {timedelta(seconds=round(-ahead))} ago"
    return Check("clock", ahead <= SKEW_SECONDS, detail, "set this machine's and the broker's clock by NTP")


def _models(settings: Settings) -> tuple[list[Check], int]:
    """The bundles, and the bytes of state that the sensors they know will take."""
    root = settings.model.dir
    try:
        models = bundle.load_all(root)
    except bundle.BundleError as error:
        remedy = f"train or copy a bundle, then point {root}/GROUP/serving at it"
        return [Check("models", False, str(error), remedy)], 0
    found, state_bytes = [], 0
    for name, model in models.items():
        known, size = len(model.sensors.names), row_bytes(model, settings.detection.reorder)
        state_bytes += known * size
        detail = f"version {model.ref.version}, {known} sensors known, {size} bytes of state a sensor"
        found.append(Check(f"model {name}", True, detail))
    for name in sorted(settings.model.groups.keys() - models.keys()):
        detail = "model.groups names it, but there is no bundle"
        found.append(Check(f"model {name}", False, detail, f"train it into {root}"))
    return found, state_bytes


def _room(settings: Settings, sensors: int, there: int) -> Iterator[Check]:
    """So many sensors of each group, all in this process, beside what the process takes by itself."""
    try:
        models = bundle.load_all(settings.model.dir)
    except bundle.BundleError:
        return  # said before
    for name, model in models.items():
        each = row_bytes(model, settings.detection.reorder) + NAME_BYTES
        wanted = PROCESS_BYTES + round(WORKING_SHARE * sensors * each)
        detail = (
            f"{sensors} sensors of {each} bytes each: {wanted / 2**30:.2g} GiB with what a checkpoint and growth take, "
            f"of {there / 2**30:.2g} GiB; each partition keeps {settings.detection.max_sensors_per_partition} at most"
        )
        remedy = "share the partitions among more members, or give each more memory"
        yield Check(f"memory {name}", wanted <= there, detail, remedy)


def machine_bytes() -> int:
    """The memory that this process may have: the machine's, or what its control group allows it."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:  # no control groups of version 2 here
        return there
    return min(there, int(allowed)) if allowed.isdecimal() else there


def _sensors(settings: Settings) -> Iterator[Check]:
    if settings.sensors_csv is None:
        return
    try:
        rows = read_sensors_csv(settings.sensors_csv)
    except (DataError, OSError) as error:
        yield Check("sensors.csv", False, str(error), "correct the line, or unset sensors_csv")
    else:
        yield Check("sensors.csv", True, f"{settings.sensors_csv}, {len(rows)} lines")


def _client(settings: Settings) -> Check:
    """What speaks to Kafka."""
    try:
        client(settings.kafka)
    except KafkaSetupError as error:
        return Check("client", False, str(error), 'install what it names, or set kafka.client to "kafka-python"')
    return Check("client", True, settings.kafka.client)


def _kernel(settings: Settings) -> Check:
    """What computes the scores."""
    try:
        fast.walkers(settings.kernel)
    except fast.KernelError as error:
        return Check("kernel", False, str(error), 'install what it names, or set kernel to "numpy"')
    if settings.kernel == "numpy":
        return Check("kernel", True, f"numpy {np.__version__}")
    kept = fast.kept_in(settings.kernel)
    where = f"kept in {kept}" if kept else "compiled at every start, as NUMBA_CACHE_DIR names no folder to keep it in"
    return Check("kernel", True, f"{fast.recorded(settings.kernel)}, {where}")


def _checkpoints(settings: Settings, state_bytes: int) -> Check:
    rate = f"{state_bytes / settings.checkpoints.every_seconds / 1e6:.2g} MB/s"
    if settings.checkpoints.store == "topic":
        return Check("checkpoints", True, f"topic {settings.kafka.topics.checkpoints}, {rate}")
    folder = settings.checkpoints.dir
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        remedy = f"let {_user()} write to {folder}, or set checkpoints.dir"
        return Check("checkpoints", False, f"{there}: {error.strerror}", remedy)
    kept = KEPT + settings.checkpoints.keep_days
    free, wanted = shutil.disk_usage(there).free, FREE_BYTES + kept * state_bytes
    detail = f"{folder}, {rate}, {free / 2**30:.1f} GiB free, {wanted / 2**30:.1f} GiB wanted"
    return Check("checkpoints", free >= wanted, detail, "make room, or set checkpoints.dir to a larger disk")


def _http(settings: Settings) -> Check:
    try:
        listen(settings.http).close()
    except WebError as error:
        remedy = "end the other program, or set http.port; if it is foreshock itself, all is well"
        return Check("http", False, str(error), remedy)
    return Check("http", True, f"{settings.http.host}:{settings.http.port} is free")


def _user() -> str:
    return os.environ.get("USER") or f"user {os.getuid()}"
