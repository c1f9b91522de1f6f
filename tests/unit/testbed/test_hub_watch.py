# SPDX-License-Identifier: Apache-2.0

"""On eventlet, the testbed's nova-compute logs what could stop its hub."""

import subprocess
import sys

from tests.e2e import hub

# In a process of its own, as monkey patching cannot be undone.
PROGRAM = """
import eventlet
eventlet.monkey_patch()
from eventlet import patcher, tpool
from oslo_log import log
from nova_rbd_backend import errors
from nova_rbd_backend.ceph import error_map
from tests.testbed.openstack import hub_watch

LOG = log.getLogger("nova_rbd_backend.virt")
hub_watch.Watch().start()
eventlet.sleep(0.1)

def wait_natively():
    patcher.original("time").sleep(1.5)

def call_ceph():
    with error_map.translated("look"):
        pass

{}
eventlet.sleep(0.2)
"""


def faults(what):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(what)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return list(hub.faults(done.stderr))


def test_waits_of_greenlets_are_no_faults():
    assert faults("eventlet.sleep(1.5)") == []


def test_native_threads_may_wait_and_call_ceph():
    what = "tpool.execute(wait_natively); tpool.execute(call_ceph)"
    assert faults(what) == []


def test_native_wait_in_the_hub_is_told_with_its_place():
    (fault,) = faults("wait_natively()")
    assert "wait_natively" in fault


def test_call_of_ceph_in_the_hub():
    (fault,) = faults("call_ceph()")
    assert "call_ceph" in fault
    assert "look" in fault


def test_log_of_another_native_thread():
    assert faults("LOG.warning('here')") == []
    (fault,) = faults("tpool.execute(LOG.warning, 'there')")
    assert "there" in fault


def test_process_that_was_stopped():
    what = (
        "import os, subprocess; subprocess.Popen(['sh', '-c', "
        "f'kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}'])"
        ".wait(); eventlet.sleep(2)"
    )
    assert faults(what) == []
