# SPDX-License-Identifier: Apache-2.0

"""A check, and how to run a list of checks."""

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator

from nova_rbd_backend import errors

#: Returns a doubt, or None; raises errors.Error if something is wrong.
Probe = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Step:
    """:ivar needs: names of steps without which this step cannot pass"""

    name: str
    probe: Probe
    needs: tuple[str, ...] = ()


class Result(enum.StrEnum):
    """NOT_TRIED: a step that this step needs has failed, or was not tried."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """:ivar remark: what is wrong or doubtful, and how to mend it"""

    name: str
    result: Result
    remark: str | None = None


def require(steps: Iterable[Step]) -> list[str]:
    """Run the steps in their order; return the doubts.

    :raises errors.Error: of the first step that fails: one line with what is
        missing and how to mend it
    """
    return [doubt for step in steps if (doubt := step.probe())]


def run(steps: Iterable[Step]) -> Iterator[Outcome]:
    """Run all steps, and yield each outcome as soon as it is known."""
    failed: set[str] = set()
    for step in steps:
        outcome = _outcome(step, failed)
        if outcome.result in (Result.FAILED, Result.NOT_TRIED):
            failed.add(step.name)
        yield outcome


def _outcome(step: Step, failed: set[str]) -> Outcome:
    if missing := [name for name in step.needs if name in failed]:
        return Outcome(step.name, Result.NOT_TRIED, f"needs: {missing[0]}")
    try:
        doubt = step.probe()
    except errors.Error as error:
        return Outcome(step.name, Result.FAILED, str(error))
    result = Result.WARNED if doubt else Result.PASSED
    return Outcome(step.name, result, doubt)
