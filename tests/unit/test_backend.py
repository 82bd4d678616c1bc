"""What TensorFlow's C++ says while it is imported: its news are kept back, its errors are not."""

from __future__ import annotations

import os

import pytest

from training.backend import without_news


def test_news_of_the_import_are_kept_back_and_errors_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    with without_news():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795616565.333966   21049 cudart_stub.cc:31] Could not find cuda drivers\n")
        os.write(2, b"F0000 00:00:1795616565.333966   21049 cpu.cc:9] built for AVX, which is not there\n")
        os.write(2, b"E0000 without an end")
    os.write(2, b"\nI0000 later\n")
    said = capfd.readouterr().err.splitlines()
    assert [line[:5] for line in said] == ["F0000", "E0000", "I0000"]
    assert said[1] == "E0000 without an end"
