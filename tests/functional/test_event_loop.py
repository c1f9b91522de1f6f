# SPDX-License-Identifier: Apache-2.0

"""Under eventlet, other greenlets run on while Ceph does not answer.

Nova 26 to 33 run nova-compute on eventlet, where one blocking call stops
every other request and the service's own heartbeat.
"""

import json
import os
import subprocess
import sys
import uuid

import pytest

from nova_rbd_backend import names

PAUSE_SECONDS = 2.0

# In a process of its own, as monkey patching cannot be undone.
PROGRAM = """
import eventlet
eventlet.monkey_patch()
import json, sys, time
from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.images.draft import Packed
from tests.support.blank_disks import blank_disk

conf_file, name, qcow2 = sys.argv[1:]
gaps, done = [], []

def tick():
    last = time.monotonic()
    while not done:
        eventlet.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now

def make(pool):
    if not qcow2:
        blank_disk(pool, name, 1 << 30)
        return
    begun = bases.begin(pool, name)
    bases.finish(pool, begun, qcow2, {}, packed=Packed("qcow2", 64 << 20))

def work():
    here = cluster.connect(ClusterSettings(conf_file, "nova", 3, 30))
    try:
        threads.run(make, Pool(here, "vms"), long=True)
        return "made"
    except errors.ClusterUnreachable:
        return "unreachable"

ticker = eventlet.spawn(tick)
print("READY", flush=True)
sys.stdin.readline()
started = time.monotonic()
result = work()
done.append(True)
ticker.wait()
print(json.dumps({
    "result": result,
    "seconds": time.monotonic() - started,
    "ticks": len(gaps),
    "longest_gap": max(gaps),
}), flush=True)
"""


def start(conf, name, qcow2=""):
    child = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            PROGRAM,
            str(conf),
            name,
            qcow2,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "READY\n"
    return child


def outcome(child):
    out, _ = child.communicate("go\n", timeout=60)
    return json.loads(out)


@pytest.fixture
def paused(ceph):
    ceph.pause_osds()
    yield ceph
    ceph.resume_osds()


@pytest.fixture
def qcow2(tmp_path):
    """An image with some data."""
    raw, path = tmp_path / "raw", tmp_path / "qcow2"
    raw.write_bytes(os.urandom(8 << 20))
    os.truncate(raw, 64 << 20)
    command = ["qemu-img", "convert", "-O", "qcow2", raw, path]
    subprocess.run(command, check=True, timeout=60)
    return str(path)


def test_conversion_blocks_no_other_greenlet(paused, qcow2):
    check_paused(paused, names.base_image(str(uuid.uuid4()), ""), qcow2)


def test_paused_osds_block_no_other_greenlet(paused):
    check_paused(paused, "event-loop-paused")


def check_paused(paused, *what):
    child = start(paused.conf, *what)
    child.stdin.write("go\n")
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(PAUSE_SECONDS)
    paused.resume_osds()
    found = json.loads(child.communicate(timeout=60)[0])
    assert found["result"] == "made"
    assert found["seconds"] > PAUSE_SECONDS - 0.5
    # If the loop had waited for Ceph, there would be a gap as long as the
    # pause.
    assert found["longest_gap"] < PAUSE_SECONDS / 2
    assert found["ticks"] > 50


def test_missing_monitor_blocks_no_other_greenlet(deaf_conf):
    found = outcome(start(deaf_conf, "event-loop-no-mon"))
    assert found["result"] == "unreachable"
    assert found["longest_gap"] < found["seconds"] / 2
    assert found["ticks"] > 50
