"""Too many sensors, and sensors of two partitions, are named in the log, but not each time."""

from __future__ import annotations

from structlog.testing import capture_logs

from pipeline.crowd import PAUSE_SECONDS, Crowd
from pipeline.groups import Stepped


def test_what_happens_within_a_minute_is_said_at_once() -> None:
    now = [100.0]
    crowd = Crowd(lambda: now[0])
    with capture_logs() as logs:
        crowd.turned(Stepped())
        crowd.turned(Stepped(evicted={"pumps": 1}))
        for i in range(20):
            crowd.turned(Stepped(evicted={"pumps": 2}, split=[f"s{i}"]))
        assert [log["groups"] for log in logs] == [{"pumps": 1}]
        now[0] += PAUSE_SECONDS
        crowd.turned(Stepped())
        crowd.turned(Stepped())
    _, evicted, split = logs
    assert evicted["groups"] == {"pumps": 40}
    assert (split["count"], split["some"]) == (20, ["s0", "s1", "s2", "s3", "s4"])
