# SPDX-License-Identifier: Apache-2.0

"""Work in native threads and with eventlet.

Each case has a process of its own, since eventlet changes a whole process.
"""

import subprocess
import sys
import textwrap

import pytest

EVENTLET = "import eventlet; eventlet.monkey_patch()\n"


def _finished(program):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done


def _run(program):
    return _finished(program).stdout.split()


NATIVE = """
import sys, threading
from nova_rbd_backend import threads
here = threading.get_ident()
print(threads.run(threading.get_ident) == here)
print(threads.run(threading.get_ident, long=True) == here)
print(threads.original_threading() is threading)
print("eventlet" in sys.modules)
"""


def test_native_threads_run_work_directly():
    assert _run(NATIVE) == ["True", "True", "True", "False"]


def test_eventlet_without_monkey_patching_changes_nothing():
    assert _run("import eventlet\n" + NATIVE)[:3] == ["True"] * 3


GREEN = """
import time
from nova_rbd_backend import threads
native = threads.original_threading()
hub = native.get_ident()
ticks = []
def tick():
    while True:
        ticks.append(1)
        eventlet.sleep(0.01)
eventlet.spawn(tick)
def work():
    # blocks this native thread for real
    native.Event().wait(0.5)
    return native.get_ident()
"""


FAILING = """
import gc, weakref
from nova_rbd_backend import threads
gc.disable()
class Connection:
    pass
def work():
    connection = Connection()
    kept.append(weakref.ref(connection))
    raise LookupError("why")
def tried(call):
    try:
        call()
    except LookupError as error:
        assert "work" in str(traceback.extract_tb(error.__traceback__))
import traceback
kept = []
tried(lambda: threads.run(work))
tried(lambda: threads.run(work, long=True))
tried(lambda: threads.run(threads.within, 5, work))
print(*(each() is None for each in kept))
"""


@pytest.mark.parametrize("kind", ["", EVENTLET])
def test_error_keeps_nothing_until_the_next_garbage_collection(kind):
    """A nova-compute hardly ever collects its oldest objects."""
    assert _run(kind + FAILING) == ["True"] * 3


@pytest.mark.parametrize("long", [False, True])
def test_green_threads_run_while_a_native_thread_works(long):
    ran, ticks = _run(
        EVENTLET
        + GREEN
        + f"print(threads.run(work, long={long}) != hub, len(ticks) > 20)"
    )
    assert (ran, ticks) == ("True", "True")


def test_long_jobs_leave_threads_for_short_ones():
    program = """
    for _ in range(30):
        eventlet.spawn(threads.run, work, long=True)
    eventlet.sleep(0.1)
    begun = time.monotonic()
    threads.run(int)
    print(time.monotonic() - begun < 0.3)
    """
    assert _run(EVENTLET + GREEN + textwrap.dedent(program)) == ["True"]


def test_waiting_jobs_have_threads_of_their_own():
    program = """
    for _ in range(30):
        eventlet.spawn(threads.run, work, long=True)
    eventlet.sleep(0.1)
    begun = time.monotonic()
    threads.run(int, waits=True)
    print(time.monotonic() - begun < 0.3)
    for _ in range(30):
        eventlet.spawn(threads.run, work, waits=True)
    eventlet.sleep(0.1)
    begun = time.monotonic()
    threads.run(int)
    print(time.monotonic() - begun < 0.3)
    """
    ran = _run(EVENTLET + GREEN + textwrap.dedent(program))
    assert ran == ["True", "True"]


BACKGROUND = """
from nova_rbd_backend import threads
threading = threads.original_threading()
hub = threading.get_ident()
ran = threading.Event()
found = []
def job(value):
    # in a background job, run() must not look for an event loop
    found.append((value, threads.run(threading.get_ident) != hub))
    ran.set()
def fail():
    raise ValueError("loud")
threads.background(fail)
threads.background(job, 7)
print(ran.wait(5), *found[0])
"""


@pytest.mark.parametrize("first", ["", EVENTLET])
def test_background(first):
    done = _finished(first + BACKGROUND)
    assert done.stdout.split() == ["True", "7", "True"], done.stderr
    assert "ValueError: loud" in done.stderr
