# SPDX-License-Identifier: Apache-2.0

"""The progress of long work, on stderr: a bar on a terminal, else lines."""

import time
from typing import Self, TextIO

_TERMINAL_SECONDS = 0.2
_LINE_SECONDS = 5.0
_WIDTH = 30


class Progress:
    """Shows how much of some work is done; removes its bar at the end."""

    def __init__(self, stream: TextIO, name: str, unit: str = "objects"):
        self._stream = stream
        self._name = name
        self._unit = unit
        self._terminal = stream.isatty()
        self._told = time.monotonic()
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show the progress, unless it was shown a moment ago."""
        pause = _TERMINAL_SECONDS if self._terminal else _LINE_SECONDS
        if time.monotonic() - self._told < pause:
            return
        self._told = time.monotonic()
        share = done / total if total else 1.0
        if not self._terminal:
            self._stream.write(
                f"{self._name}: {share:.0%}, {done} of {total} {self._unit}\n"
            )
            return
        bar = ("=" * int(share * _WIDTH)).ljust(_WIDTH)
        line = f"{self._name} [{bar}] {share:4.0%}"
        self._stream.write(f"\r{line}")
        self._stream.flush()
        self._shown = len(line)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
