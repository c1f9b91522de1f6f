# SPDX-License-Identifier: Apache-2.0

"""Processes that die at each step, and the server that forks them."""

import collections
import os
import signal
import sys

import pytest

from tests.support import dying
from tests.support.forks import ForkServer


@pytest.mark.parametrize("at_once", [1, 4])
def test_each_step_dies_once(at_once):
    ran = collections.Counter()

    def work(step):
        ran[step] += 1
        return step <= 80

    assert dying.deaths(work, 80, at_most=80, at_once=at_once) == 80
    assert set(range(1, 82)) <= set(ran)
    assert set(ran.values()) == {1}


@pytest.mark.parametrize(("at_least", "at_most"), [(1, 79), (81, 100)])
def test_too_many_or_too_few_steps(at_least, at_most):
    with pytest.raises(AssertionError, match="steps"):
        dying.deaths(lambda step: step <= 80, at_least, at_most)


def test_first_error_ends_all():
    def work(step):
        if step == 3:
            raise ZeroDivisionError
        return True

    with pytest.raises(ZeroDivisionError):
        dying.deaths(work, at_least=1, at_once=2)


def die(text):
    print(text, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code):
    print(os.getpid(), file=sys.stderr)
    sys.exit(int(code))


def fail():
    raise RuntimeError("so it is")


@pytest.fixture(scope="module")
def forks():
    with ForkServer(__name__) as server:
        yield server


def test_a_fork_that_is_killed(forks):
    done = forks.run(die, "last words", limit_seconds=10)
    assert dying.killed(done)
    assert done.stdout == "last words\n"


def test_forks_that_end(forks):
    pids = set()
    for code in (0, 3):
        done = forks.run(leave, str(code), limit_seconds=10)
        assert done.returncode == code
        pids.add(int(done.stderr))
    assert len(pids) == 2
    done = forks.run(fail, limit_seconds=10)
    assert done.returncode == 1
    assert "RuntimeError: so it is" in done.stderr


def test_a_fork_that_does_not_end(forks):
    with pytest.raises(AssertionError, match="still ran"):
        forks.run(signal.pause, limit_seconds=0.2)
