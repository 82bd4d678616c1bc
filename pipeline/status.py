"""What the loop tells the outside, and the questions it answers between two turns."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from pipeline.core.alerts import Alert

Description = dict[str, object] | None


@dataclass(slots=True)
class Status:
    """Shared by the loop, which writes, and the web, which reads. Values are replaced whole, never changed."""

    clock: Callable[[], float] = time.monotonic
    beat_at: float = field(init=False)  # when the loop last gave a sign of life
    waiting_for: str = "the service is starting"  # why it is not ready; "" where it is
    open_alerts: tuple[Alert, ...] = ()
    _questions: queue.SimpleQueue[tuple[str, Future[Description]]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.beat_at = self.clock()

    def beat(self) -> None:
        """The loop is alive."""
        self.beat_at = self.clock()

    def wait(self, why: str) -> None:
        """The loop is alive, and waits for something outside."""
        self.waiting_for = why
        self.beat()

    @property
    def silence_seconds(self) -> float:
        """Since the last sign of life."""
        return self.clock() - self.beat_at

    def ask(self, sensor: str) -> Future[Description]:
        """Put a question about a sensor; the state belongs to the loop, so the loop answers."""
        answer: Future[Description] = Future()
        self._questions.put((sensor, answer))
        return answer

    def answer(self, describe: Callable[[str], Description]) -> None:
        """Answer what was asked since the last turn."""
        while not self._questions.empty():
            sensor, answer = self._questions.get()
            if answer.set_running_or_notify_cancel():
                answer.set_result(describe(sensor))
