"""Where a sensor belongs: the partition that the Java clients' default partitioner puts its key in."""

from __future__ import annotations

SEED, MULTIPLIER, WORD = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF  # MurmurHash2, 32 bit, as org.apache.kafka.common.utils


def murmur2(key: bytes) -> int:
    """The 32-bit hash, unsigned."""
    h = SEED ^ len(key)
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * MULTIPLIER & WORD
        h = (h * MULTIPLIER & WORD) ^ ((k ^ (k >> 24)) * MULTIPLIER & WORD)
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * MULTIPLIER & WORD
    h = (h ^ (h >> 13)) * MULTIPLIER & WORD
    return h ^ (h >> 15)


def partition_of(sensor: str, partitions: int) -> int:
    """Which of so many partitions the sensor's readings go to."""
    return (murmur2(sensor.encode()) & 0x7FFFFFFF) % partitions
