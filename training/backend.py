"""Keras and TensorFlow, imported without what their C++ has to say of machines without a graphics card."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Lines of absl's level I, and its complaint that nobody has set it up; no setting reaches either.
SIEVE = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


@contextmanager
def without_news() -> Iterator[None]:
    """Everything else still comes to standard error, also where the process ends in here: another one sieves it."""
    kept = os.dup(2)
    words = [sys.executable, "-I", "-S", "-c", SIEVE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as sieve:  # noqa: S603 - they are ours
        assert sieve.stdin is not None
        os.dup2(sieve.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sieve.stdin.close()


with without_news():
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
