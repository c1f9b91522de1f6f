# SPDX-License-Identifier: Apache-2.0

"""One simulated compute host: a process with its own cache and connection.

Started by benchmarks.hosts. Reads a JSON object with "do" and arguments from
each line of its input, and answers each with one line. What the work prints
goes to stderr.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any


def make_side(side: str, **how: Any) -> Any:
    if side == "floor":
        from benchmarks.floor_side import FloorSide

        return FloorSide(side, **how)
    if side == "crowd":
        from benchmarks.crowd_side import CrowdSide

        return CrowdSide(side, **how)
    if how["green"]:
        from benchmarks.green_side import GreenSide

        return GreenSide(side, **how)
    from benchmarks.nova_side import NovaSide

    return NovaSide(side, **how)


def lines(green: bool) -> Iterator[str]:
    """Give one request after another; the sender waits for each answer."""
    while True:
        if green:
            from eventlet import hubs

            # The backend's background work goes on meanwhile.
            hubs.trampoline(sys.stdin.fileno(), read=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def main() -> None:
    # When a terminal sends Ctrl-C to all processes, the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    how = json.loads(sys.argv[1])
    del sys.argv[1:]  # Nova looks at it.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side = make_side(**how)
    answers.write(json.dumps({"ok": None}) + "\n")
    for line in lines(how["green"]):
        request = json.loads(line)
        try:
            work = getattr(side, request.pop("do"))
            answer = {"ok": work(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
