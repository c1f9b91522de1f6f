# SPDX-License-Identifier: Apache-2.0

"""Processes that kill themselves at each step of a storage flow in turn."""

import signal
import subprocess
import sys

from tests.functional import storage_child

# More than any flow has; the child that needs fewer ends by itself.
MOST_STEPS = 80


def make_osds_read_objects_again(ceph):
    """Drop what the OSDs keep in memory of the pool's objects.

    A client that dies in the moment it registers a watch leaves one without
    a timer, so that it never lapses: seen in 16.2.15, blocklisting does not
    end it. Once the object is read from disk again the timer runs. An OSD
    keeps 64 objects for each PG (osd_pg_object_context_cache_count), so a
    pool in use gets there by itself.
    """
    with ceph.admin() as admin:
        ioctx = admin.open_ioctx("vms")
        keys = [f"not-an-image.{number}" for number in range(1500)]
        writes = [ioctx.aio_write_full(key, b"x") for key in keys]
        for write in writes:
            write.wait_for_complete()
        for key in keys:
            ioctx.remove_object(key)


def child(ceph, flow, name, argument, step):
    command = [sys.executable, "-m", storage_child.__name__, str(ceph.conf)]
    command += [flow, name, argument, str(step)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def kill_at_each_step(ceph, flow, prepare):
    """(step, what prepare gave) of all children that killed themselves."""
    killed = []
    for step in range(1, MOST_STEPS):
        name, argument = prepare()
        process = child(ceph, flow, name, argument, step)
        process.communicate(timeout=60)
        killed.append((step, name))
        if process.returncode == 0:
            assert step > 8, "the steps were not hooked"
            return killed
        assert process.returncode == -signal.SIGKILL
    raise AssertionError(f"{flow} has more than {MOST_STEPS} steps")
