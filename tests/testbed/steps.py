# SPDX-License-Identifier: Apache-2.0

"""Say what is being done, as it is done, and how long it took."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Step:
    """One finished step."""

    name: str
    seconds: float
    proves: str = ""
    passed: bool = True


class Steps:
    """Announces steps on standard output and remembers them for a table."""

    def __init__(self) -> None:
        self.done: list[Step] = []
        self._begin = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str, proves: str = "") -> Iterator[None]:
        """Announce the step, run the block, and print how long it took."""
        start = time.monotonic()
        print(f"==> [{start - self._begin:6.1f} s] {name}", flush=True)
        passed = False
        try:
            yield
            passed = True
        finally:
            seconds = time.monotonic() - start
            outcome = "done" if passed else "FAILED"
            print(f"    {outcome} after {seconds:.1f} s: {name}", flush=True)
            self.done.append(Step(name, seconds, proves, passed))

    def seconds(self) -> float:
        """Seconds since the first step could begin."""
        return time.monotonic() - self._begin

    def table(self) -> str:
        """All steps: outcome, seconds, what each proves."""
        width = max(len(step.name) for step in self.done)
        lines = [f"{'step':{width}}  {'seconds':>7}  {'':6}  proves"]
        lines += [
            f"{step.name:{width}}  {step.seconds:7.1f}  "
            f"{'ok' if step.passed else 'FAILED':6}  {step.proves}".rstrip()
            for step in self.done
        ]
        lines.append(f"{'in all':{width}}  {self.seconds():7.1f}")
        return "\n".join(lines)
