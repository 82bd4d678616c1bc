"""A disk that takes nothing more at a checkpoint: it costs the checkpoint, and no alert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from pipeline.adapters.memory import MemoryBroker
from pipeline.core.alerts import Alert
from pipeline.telemetry import Telemetry
from tests.disks import Disk, small_disk
from tests.faults import Said
from tests.unit.test_runner import DAY_LATER, Service, drained, fill, paced, told

EVERY_SECONDS = 5.0


@pytest.fixture
def disk() -> Iterator[Disk]:
    with small_disk() as disk:
        yield disk


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, int], Alert]:
    """The alerts of an uninterrupted run."""
    broker = MemoryBroker(partitions=2)
    fill(broker)
    drained(Service(broker, Path("/nowhere")).start(), broker)
    return told(broker)


@pytest.mark.fault(
    "the disk of the checkpoints is {what}",
    expected="alerts and commits go on; log and metric tell; the checkpoint before it serves a restart",
)
@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_disk_that_refuses_costs_the_checkpoint_and_no_alert(
    disk: Disk, expected: dict[tuple[str, int], Alert], what: str, seen: Said
) -> None:
    broker = MemoryBroker(partitions=2)
    fill(broker)
    service = Service(broker, disk.folder / "checkpoints", batch=60, pace=paced(checkpoint_seconds=EVERY_SECONDS))
    runner, telemetry = service.start(), Telemetry()

    def turns(how_many: int) -> float:
        """When the newest checkpoint was taken, as the metric says, s since the clock began."""
        for _ in range(how_many):
            service.time.now += 1.0
            telemetry.turned(runner.turn(), runner.partitions)
        lines = generate_latest(telemetry.registry).decode().splitlines()
        (line,) = [line for line in lines if line.startswith("foreshock_checkpoint_timestamp_seconds ")]
        return float(line.split()[1]) - DAY_LATER

    taken = turns(7)
    assert taken > 0
    disk.fill() if what == "full" else disk.lock()
    with capture_logs() as logs:
        assert turns(9) == taken, "the metric tells of a checkpoint that there is not"
        before = {progress.checkpoint for progress in runner.partitions.values()}
        committed = [position.offset for position in broker.committed.values()]
        runner = service.start()  # the other was killed
        drained(runner, broker)
    failed = [line["why"] for line in logs if line["event"] == "checkpoint failed"]
    assert {line["checkpoint"] for line in logs if line["event"] == "partition assigned"} == before
    replayed = sum(line["replay"] for line in logs if line["event"] == "partition assigned")
    assert replayed > 0
    assert min(committed) > 0
    disk.repair()
    assert turns(9) > taken, "the disk has room again, and there is no checkpoint"
    assert told(broker) == expected
    debris = [path.name for path in disk.folder.rglob("*.new")]
    assert debris == []
    why = failed[0].partition(":")[0]
    seen(f"{disk.kind}: {len(failed)} checkpoints failed ({why}); {replayed} messages replayed, alerts the same")
