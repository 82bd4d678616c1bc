"""Bytes to readings and back: each record is decoded by the codec that its `content-type` header names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from pipeline.codecs.json import JsonReadings
from pipeline.core.readings import Reading, Reason, Record, Rejected

CONTENT_TYPE = "content-type"  # the record header, matched without regard to case


class Codec(Protocol):
    """One wire format; `tests/contract/codec.py` says what every codec keeps."""

    @property
    def content_type(self) -> str:
        """What the `content-type` header says, in lower case and without parameters."""
        ...

    def decode(self, record: Record) -> list[Reading] | Rejected:
        """The readings in one record, or why there are none; never raises, and looks at nothing but the record."""
        ...

    def encode(self, reading: Reading) -> bytes:
        """A message that decodes to this reading, for whoever produces."""
        ...


JSON = JsonReadings()
CODECS: Mapping[str, Codec] = {JSON.content_type: JSON}


def reading_codec(content_type: str | None, codecs: Mapping[str, Codec] = CODECS) -> Codec | None:
    """The codec for a content type, its parameters ignored; JSON where there is none; None where nothing reads it."""
    if content_type is None:
        return JSON
    return codecs.get(content_type.partition(";")[0].strip().lower())


def decode(records: Iterable[Record], codecs: Mapping[str, Codec] = CODECS) -> tuple[list[Reading], list[Rejected]]:
    """What a poll brought, in its order: the readings, and the records that hold none with the reason."""
    readings: list[Reading] = []
    rejected: list[Rejected] = []
    for record in records:
        content_type = _content_type(record) if record.headers else None
        codec = reading_codec(content_type, codecs)
        decoded = codec.decode(record) if codec else _unknown(record, content_type, codecs)
        if isinstance(decoded, Rejected):
            rejected.append(decoded)
        else:
            readings.extend(decoded)
    return readings, rejected


def _content_type(record: Record) -> str | None:
    for name, value in reversed(record.headers):  # as Kafka's clients do, the last header of a name counts
        if name.lower() == CONTENT_TYPE:
            return value.decode("latin-1")
    return None


def _unknown(record: Record, content_type: str | None, codecs: Mapping[str, Codec]) -> Rejected:
    detail = f"no codec reads the content type {(content_type or '')[:80]!r}; there are {', '.join(sorted(codecs))}"
    return Rejected(Reason.UNREADABLE, detail, record.topic, record.partition, record.offset, record.key, record.value)
