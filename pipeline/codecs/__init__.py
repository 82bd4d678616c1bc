"""Bytes to readings and back: each record is decoded by the codec that its `content-type` header names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.codecs.batch_json import JsonBatches
from pipeline.codecs.batch_msgpack import MsgpackBatches
from pipeline.codecs.events import is_event
from pipeline.codecs.json import JsonReadings
from pipeline.core.frames import Decoded
from pipeline.core.readings import Reading, Reason, Record, Rejected
from pipeline.core.tags import Tags

CONTENT_TYPE = "content-type"  # the record header, matched without regard to case


class Codec(Protocol):
    """One wire format; `tests/contract/codec.py` says what every codec keeps."""

    @property
    def content_type(self) -> str:
        """What the `content-type` header says, in lower case and without parameters."""
        ...

    def decode(self, records: Sequence[Record]) -> Decoded:
        """The readings in these records, and a refusal of what is none; never raises, and looks at nothing else."""
        ...


JSON = JsonReadings()
JSON_BATCHES = JsonBatches()
MSGPACK_BATCHES = MsgpackBatches()
CODECS: Mapping[str, Codec] = {codec.content_type: codec for codec in (JSON, JSON_BATCHES, MSGPACK_BATCHES)}


def reading_codec(content_type: str | None, codecs: Mapping[str, Codec] = CODECS) -> Codec | None:
    """The codec for a content type, its parameters ignored; JSON where there is none; None where nothing reads it."""
    if content_type is None:
        return JSON
    return codecs.get(content_type.partition(";")[0].strip().lower())


def decode_frames(records: Sequence[Record], codecs: Mapping[str, Codec] = CODECS) -> Decoded:
    """What a poll brought, as columns: the readings, and the refusals in the order of the records."""
    if not any(record.headers for record in records):
        return JSON.decode(records)
    by_type: dict[str | None, list[Record]] = {}
    headers, members = None, []
    for record in records:
        if record.headers != headers:  # as a rule, neighbours have the same
            headers = record.headers
            members = by_type.setdefault(_content_type(record), [])
        members.append(record)
    whole = Decoded([], [])
    for content_type, members in by_type.items():
        if members and is_event(members[0]):
            continue  # no reading, and no fault either: see `codecs.events`
        codec = reading_codec(content_type, codecs)
        found = codec.decode(members) if codec else Decoded([], _unknown(members, content_type, codecs))
        whole.frames.extend(found.frames)
        whole.rejected.extend(found.rejected)
    if len(by_type) > 1:
        whole.rejected.sort(key=lambda r: (r.partition, r.offset))
    return whole


def decode(records: Sequence[Record], tags: Tags | None = None) -> tuple[list[Reading], list[Rejected]]:
    """The same one by one, in stream order, for those that need no rate; `tags` under their sensors' names."""
    frames, rejected = decode_frames(records)
    frames = list(tags.renamed(frames)) if tags else frames
    readings = sorted((row for frame in frames for row in frame.readings()), key=lambda row: (row[1].partition, row[0]))
    return [reading for _, reading in readings], rejected


def _content_type(record: Record) -> str | None:
    for name, value in reversed(record.headers):  # as Kafka's clients do, the last header of a name counts
        if name.lower() == CONTENT_TYPE:
            return (value or b"").decode("latin-1")  # a header may be null
    return None


def _unknown(records: Sequence[Record], content_type: str | None, codecs: Mapping[str, Codec]) -> list[Rejected]:
    detail = f"no codec reads the content type {(content_type or '')[:80]!r}; there are {', '.join(sorted(codecs))}"
    return [Rejected(Reason.UNREADABLE, detail, r.topic, r.partition, r.offset, r.key, r.value) for r in records]
