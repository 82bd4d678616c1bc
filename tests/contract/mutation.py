"""Messages that are nearly right: a corpus, cut, spliced and sprinkled with what formats of the wire are made of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

# What breaks parsers of text, and what breaks those that read lengths: msgpack's markers, wide integers, huge counts.
PIECES = (
    *(bytes([b]) for b in b'{}[]",:\\.-+eE0123456789ntf\x00\xff\xc3 '),
    *(b"1e999", b"NaN", b"Infinity", b"true", b"null", b'""', b"9" * 400, b"\\ud800", b"[" * 100, b"{" * 100),
    *(b'"sensor":', b'"time":', b'"value":', b'"values":', b"1e18", b"-1"),
    *(bytes([b]) for b in (0x7F, 0x80, 0x81, 0x8F, 0x90, 0x91, 0xC0, 0xC1, 0xC2, 0xCA, 0xCB, 0xCF, 0xD3, 0xE0)),
    *(bytes([b]) + b"\xff" * 4 for b in (0xC6, 0xDB, 0xDD, 0xDF)),  # lengths of 4 GiB
    b"\x91" * 100,
    *(b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6), b"\x00" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7),
)
TOKENS = (
    *(b'""', b'"x"', b'"a b\\u0000"', b'"value"', b'"good"', b'"2026-02-30T00:00:00Z"', b'"2026-11-22T11:40:00+25:00"'),
    *(b"0", b"-1", b"1.5", b"-0.0", b"1e308", b"1e309", b"9" * 400, b"NaN", b"-Infinity"),
    *(b"true", b"null", b"[]", b"{}"),
    *(b"1795347600123", b"1795347600123.5", b"1e18", b"9223372036854775808", b'{"a":{"b":[1]}}'),
)
TOKEN = re.compile(rb'"[^"]*"|[-+.0-9eE]+|true|false|null')
LONGEST = 4096  # of a seed: a longer one takes time and finds no more


def mutations(seeds: Sequence[bytes], count: int, seed: int = 7) -> Iterator[bytes]:
    """`count` messages, the same for the same seeds: each a seed that was changed in one to four places."""
    chance = random.Random(seed)  # noqa: S311 - it only has to repeat
    short = [message for message in seeds if len(message) <= LONGEST]
    for _ in range(count):
        message = bytearray(chance.choice(short))
        for _ in range(chance.choice((1, 1, 2, 4))):
            start = chance.randrange(len(message) + 1)
            end = start + chance.randint(0, 3)
            match chance.randrange(10):
                case 0:
                    del message[start:]
                case 1:
                    message[start:] = chance.choice(short)[start:]
                case 2:
                    message[start:end] = message[end : end + 8] * 2
                case 3 if start < len(message):
                    message[start] ^= 1 << chance.randrange(8)
                case 4 | 5 | 6 if tokens := list(TOKEN.finditer(message)):
                    one = chance.choice(tokens)
                    message[one.start() : one.end()] = chance.choice(TOKENS)
                case _:
                    message[start:end] = chance.choice(PIECES)
        yield bytes(message)
