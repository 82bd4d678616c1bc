"""Records whose headers kafka-python cannot read: it would raise, at every fetch that has one, for good.

Kafka's protocol has the names of headers in UTF-8, and no broker looks. Such a record goes on without its headers, as
one that no codec reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch

from pipeline.core.readings import UNREADABLE_HEADERS


def tolerate_any_header(consumer: KafkaConsumer) -> None:
    """From now on; before it has fetched anything."""
    consumer._fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        unpacked: Iterator[Any] = super()._unpack_records(tp, _Batches(records), *deserializers)
        return unpacked


class _Batches:
    def __init__(self, records: Any) -> None:
        self._records = records

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        return _Batch(batch._buffer) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    _buffer: Any
    _lenient: _Lenient | None = None

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:  # only a header's name is decoded; where the batch stands has not moved
            strict = self._buffer
            self._buffer = self._lenient = self._lenient or _Lenient(strict)  # once: it may hold many such
            try:
                record = super()._read_msg()
            finally:
                self._buffer = strict
            record._headers = list(UNREADABLE_HEADERS)
            return record


class _Lenient(bytes):
    """Decodes whatever it is."""

    @overload  # type: ignore[override]
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> _Lenient: ...
    def __getitem__(self, at: int | slice) -> int | _Lenient:
        found = super().__getitem__(at)
        return found if isinstance(found, int) else _Lenient(found)

    def decode(self, encoding: str = "utf-8", _: str = "") -> str:
        return super().decode(encoding, "replace")
