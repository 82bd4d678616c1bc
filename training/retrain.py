"""The next version of each group, learned without what was wrong; it serves only where it forecasts no worse."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from pipeline import bundle
from pipeline.adapters.files import DataError, Series
from pipeline.core.frames import Frame
from pipeline.core.model import Model
from pipeline.core.readings import Reading
from pipeline.routing import Router, groups_of
from training.dataset import FEWEST_ROWS, Group, in_time, prepare, regroup
from training.masking import Mask, mask
from training.past import Past

if TYPE_CHECKING:
    from training.fit import FitSettings
    from training.train import Progress, Trained

LOCK = ".retrain.lock"  # in the folder of the models
DECISION = "decision.json"  # in the folder of a version
MOST_LISTED = 200  # masked spans that manifest and report name
NO_WORSE = 1.0  # a new version's held-out error may be so many times that of the one that serves


class RetrainError(Exception):
    """Retraining cannot begin, and why."""


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """What a run can be told; the rest is as in the version that serves."""

    weights: Literal["shared", "own", "auto"] = "auto"
    updates: int | None = None  # None: from the rows
    seed: int = 0
    patterns: Mapping[str, str] = field(default_factory=dict)  # group -> sensors, as in model.groups


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What came of one group."""

    group: str
    version: str | None  # the new one; None where there was too little to learn from
    served_before: str | None  # None: the group is new
    promoted: bool
    error: float | None  # held-out forecast error: mean over horizons of the mean square, in z of the new scales
    served_error: float | None  # that of the version that served, on the same readings in the same unit
    masked_ratio: float  # of the readings
    masked_spans: int
    reason: str  # a sentence

    @property
    def error_ratio(self) -> float | None:
        """New to old; None where they cannot be compared."""
        return self.error / self.served_error if self.error is not None and self.served_error else None


@dataclass(frozen=True, slots=True)
class RetrainOutcome:
    """What came of a run; `notes` are sentences about what was left out."""

    groups: tuple[GroupOutcome, ...]
    notes: tuple[str, ...]


def retrain(
    read: Callable[[], Past],
    model_dir: Path,
    settings: RetrainSettings | None = None,
    progress: Progress | None = None,
    metrics: Path | None = None,
    clock: Callable[[], float] = time.time,
) -> RetrainOutcome:
    """Write the next version of every group in `model_dir`, and let it serve if it forecasts no worse.

    Only one run works on a folder: RetrainError names the other. DataError where nothing can be learned; `metrics`,
    a textfile for Prometheus, is then left as it was.
    """
    if metrics is not None and not metrics.absolute().parent.is_dir():
        raise RetrainError(f"{metrics}: there is no folder {metrics.absolute().parent}; create it")
    with _alone(model_dir, clock):
        serving = bundle.load_all(model_dir) if any(model_dir.glob(f"*/{bundle.SERVING}")) else {}
        outcome = _Run(model_dir, settings or RetrainSettings(), progress).outcome(read(), serving)
        if metrics is not None:
            _write_metrics(outcome, metrics, clock())
    return outcome


class _Run:
    """One run: what to train, and what becomes of it."""

    def __init__(self, root: Path, settings: RetrainSettings, progress: Progress | None) -> None:
        self._root, self._settings, self._progress = root, settings, progress

    def outcome(self, past: Past, serving: Mapping[str, Model]) -> RetrainOutcome:
        masked = mask(past.series, past.episodes, past.quality)
        members, strangers, notes = routed(past.series, serving, self._settings.patterns)
        known = {name: regroup(members.get(name, ()), model, masked.spans) for name, model in serving.items()}
        groups = [group for group in known.values() if group is not None]
        notes = [*past.notes, *notes]
        if strangers or not serving:
            try:
                found = prepare(strangers, masked.spans, taken=serving.keys())
            except DataError as why:
                if not groups:
                    raise
                notes.append(str(why))
            else:
                groups += found.groups
                notes += found.left_out
                members |= {g.name: _of(g, strangers) for g in found.groups}
        if not groups:
            raise DataError(f"no sensor of {', '.join(serving)} has {FEWEST_ROWS} readings that are not masked")
        said = [self._challenge(g, serving.get(g.name), members[g.name], masked, notes) for g in groups]
        said += [_starved(serving[n], members.get(n, ()), masked) for n, group in known.items() if group is None]
        return RetrainOutcome(tuple(said), tuple(notes))

    def _challenge(
        self, group: Group, champion: Model | None, members: Sequence[Series], masked: Mask, notes: Sequence[str]
    ) -> GroupOutcome:
        """Train a group's next version, compare it with the one that serves, decide, and write the decision down."""
        from training.train import Silence, TrainSettings, train_group  # TensorFlow takes seconds to load

        names = {s.sensor for s in members}
        listed = [span for span in masked.listed if span.sensor in names]
        ratio = _share(members, masked)
        if len(listed) > MOST_LISTED:
            more = f"{len(listed)} spans are masked, of which {MOST_LISTED} are listed"
            group = replace(group, notes=(*group.notes, more))
        about = {
            "left_out": list(notes),
            "masked": {"ratio": ratio, "spans": len(listed)},
            "masked_spans": listed[:MOST_LISTED],
        }
        settings = TrainSettings(fit=self._fit_settings(champion), weights=self._settings.weights)
        trained = train_group(group, self._root, settings, self._progress or Silence(), about, champion)
        outcome = _verdict(group, champion, trained, ratio, len(listed))
        decision = {**asdict(outcome), "decided_at": datetime.now(UTC).isoformat(timespec="seconds")}
        (trained.folder / DECISION).write_text(json.dumps(decision, indent=1), encoding="utf-8")
        if outcome.promoted:
            bundle.serve(trained.folder)
        return outcome

    def _fit_settings(self, champion: Model | None) -> FitSettings:
        """The champion's architecture: a running service can swap only like for like."""
        from training.fit import FitSettings

        chosen = FitSettings(updates=self._settings.updates, seed=self._settings.seed)
        if champion is None:
            return chosen
        network = champion.network
        return replace(
            chosen,
            cell=network.cell,
            hidden=network.hidden,
            layers=len(network.layers),
            horizons=network.horizons,
            mode=network.mode,
            window=network.window,
        )


def routed(
    series: Sequence[Series], serving: Mapping[str, Model], patterns: Mapping[str, str]
) -> tuple[dict[str, list[Series]], list[Series], list[str]]:
    """The sensors of each serving group, as the live service routes them; those of a new kind; why some are neither.

    A sensor is of a new kind if no group reads any of its channels. One that the service refuses although a group
    reads some of them is left out: a group of its own would make others' readings fit two groups.
    """
    router = Router(groups_of(serving, patterns))
    read_by_some = {channel for model in serving.values() for channel in model.channels}
    members: dict[str, list[Series]] = defaultdict(list)
    strangers: list[Series] = []
    notes: list[str] = []
    for one in series:
        found, refused = router.split(Frame.of([Reading(one.sensor, 0, dict.fromkeys(one.channels, 0.0))]))
        for group, (frame,) in found.items():
            members[group].append(replace(one, channels=frame.channels))  # `value` may have got its name
        if refused and read_by_some.isdisjoint(one.channels):
            strangers.append(one)
        elif refused:
            notes.append(f"{refused[0].detail}; not trained")
    return members, strangers, notes


def _verdict(group: Group, champion: Model | None, trained: Trained, masked_ratio: float, spans: int) -> GroupOutcome:
    from training.contest import held_out_error, scales_of

    new = trained.model.ref.version
    unit = scales_of(trained.model)
    errors = held_out_error(trained.model, group, unit)
    known = ~np.isnan(errors)
    error = float(errors[known].mean()) if known.any() else None
    if champion is None:
        reason = f"version {new} serves, the first of its group; a running service reads it from its next start on"
        return GroupOutcome(group.name, new, None, True, error, None, masked_ratio, spans, reason)
    old = champion.ref.version
    if error is None:
        reason = f"version {old} goes on serving: the history held out is too short to compare version {new} with it"
        return GroupOutcome(group.name, new, old, False, None, None, masked_ratio, spans, reason)
    served_error = float(held_out_error(champion, group, unit)[known].mean())
    promoted = error <= NO_WORSE * served_error
    verdict, compared = ("serves", "no worse") if promoted else ("does not serve", "worse")
    reason = (
        f"version {new} {verdict}: its held-out forecast error, {error:.4g}, is {compared} than the {served_error:.4g} "
        f"of version {old}"
    )
    return GroupOutcome(group.name, new, old, promoted, error, served_error, masked_ratio, spans, reason)


def _starved(champion: Model, members: Sequence[Series], masked: Mask) -> GroupOutcome:
    """A group that has too little to learn from."""
    names = {s.sensor for s in members}
    spans = sum(span.sensor in names for span in masked.listed)
    old = champion.ref.version
    found = f"no sensor has {FEWEST_ROWS} readings that are not masked" if members else "the history has none of it"
    reason = f"version {old} goes on serving: {found}"
    return GroupOutcome(champion.group, None, old, False, None, None, _share(members, masked), spans, reason)


def _share(members: Sequence[Series], masked: Mask) -> float:
    """Of the members' readings, that which is masked."""
    readings = sum(len(in_time(one)) for one in members)
    return sum(map(masked.hidden, members)) / readings if readings else 0.0


def _of(group: Group, series: Sequence[Series]) -> list[Series]:
    names = {history.sensor for history in group.histories}
    return [one for one in series if one.sensor in names]


@contextmanager
def _alone(model_dir: Path, clock: Callable[[], float]) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go of however this process ends."""
    model_dir.mkdir(parents=True, exist_ok=True)
    path = model_dir / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RetrainError(f"{model_dir}: is being retrained by {holder}; wait until it ends") from None
        began = datetime.fromtimestamp(clock(), UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {began}")
        file.flush()
        yield


def _write_metrics(outcome: RetrainOutcome, path: Path, now: float) -> None:
    """For node-exporter's textfile collector; a reader sees the old file or the new one."""
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=registry)

    gauge("foreshock_retrain_last_success_timestamp_seconds", "When retraining last ended well.").set(now)
    promoted = gauge("foreshock_retrain_promoted", "Whether the group's last new version serves.", "group")
    error_ratio = gauge("foreshock_retrain_heldout_error_ratio", "Error of the new version to that before it.", "group")
    masked_ratio = gauge("foreshock_retrain_masked_ratio", "Share of the readings not learned from.", "group")
    for group in outcome.groups:
        promoted.labels(group.group).set(group.promoted)
        masked_ratio.labels(group.group).set(group.masked_ratio)
        if group.error_ratio is not None:
            error_ratio.labels(group.group).set(group.error_ratio)
    write_to_textfile(str(path), registry)
