"""`make soak`: a service reads for ten minutes, and the memory it takes is a line that should be flat."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import Progress

from pipeline.console import FAILED, OK, err, out
from tests.brokers import Broker, best_broker
from tests.chaos.world import Size, World
from tests.conftest import fresh_topics

WARM_SHARE = 0.2  # of the time, in which caches and pools fill
FLAT = 0.02  # of the memory at the end: so much may it seem to grow in the time that is measured
LOOK_SECONDS = 1.0


class Soaked(NamedTuple):
    """Memory against time, after it was warm."""

    seconds: float  # that were measured
    readings: int  # that were read in all
    resident: float  # MiB, median
    slope: float  # KiB a minute, by least squares
    spread: float  # KiB a minute, standard error of the slope

    @property
    def is_flat(self) -> bool:
        """Whether what it would have grown by is next to nothing."""
        return self.slope / 1024 * self.seconds / 60 < FLAT * self.resident

    def __str__(self) -> str:
        return (
            f"{self.readings:,} readings; {self.resident:.0f} MiB resident; slope over {self.seconds / 60:.1f} minutes "
            f"{self.slope:+.0f} ± {self.spread:.0f} KiB a minute: {'flat' if self.is_flat else 'NOT FLAT'}"
        )


def soak(broker: Broker, folder: Path, minutes: float, rate: float) -> Soaked:
    """Send so many readings a second of 200 sensors for so long; what the service took meanwhile."""
    looks: list[tuple[float, float]] = []
    with fresh_topics(broker) as topics, Progress(console=err) as progress:
        world = World(broker, topics, folder, Size(readings=round(rate * minutes * 60)))
        service = world.service("soak", "alone", world.outputs(), {"CHECKPOINTS__EVERY_SECONDS": "10"})
        service.start()
        try:
            service.wait_until_ready()
            assert service.process is not None
            task = progress.add_task("soaking", total=minutes * 60)
            began = time.monotonic()
            while (elapsed := time.monotonic() - began) < minutes * 60:
                world.stream.send_until(elapsed / (minutes * 60))
                if not looks or elapsed > looks[-1][0] + LOOK_SECONDS:
                    looks.append((elapsed, resident(service.process.pid)))
                    progress.update(task, completed=elapsed, description=f"soaking: {looks[-1][1]:.0f} MiB")
                time.sleep(0.02)
            readings = int(service.metric("foreshock_readings_total"))
            assert service.stop() == 0, service.log.read_text()[-3000:]
        finally:
            service.end()
            world.stream.close()
    return soaked(np.array(looks), readings)


def resident(pid: int) -> float:
    """MiB that the process holds in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def soaked(looks: np.ndarray[tuple[int, int], np.dtype[np.float64]], readings: int) -> Soaked:
    """The slope of `looks` (n, 2), seconds and MiB."""
    seconds, memory = looks[looks[:, 0] >= WARM_SHARE * looks[-1, 0]].T
    minutes = seconds / 60
    (slope, _), covariance = np.polyfit(minutes, memory * 1024, 1, cov=True)
    return Soaked(
        float(seconds[-1] - seconds[0]),
        readings,
        float(np.median(memory)),
        float(slope),
        float(covariance[0, 0] ** 0.5),
    )


def main() -> int:
    """Run it and print the slope; the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="readings a second")
    asked = parser.parse_args()
    broker = best_broker()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            seen = soak(broker, Path(folder), asked.minutes, asked.rate)
    finally:
        broker.stop()
    out.print(f"{broker.name}: {seen}", soft_wrap=True, highlight=False)
    return OK if seen.is_flat else FAILED


if __name__ == "__main__":
    sys.exit(main())
