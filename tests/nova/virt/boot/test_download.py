# SPDX-License-Identifier: Apache-2.0

"""Under eventlet, a download lets nova-compute's other greenlets run.

A greenlet that stands still for long, as in an fsync of gigabytes, holds up
every other request and the service's own heartbeat.
"""

import json
import subprocess
import sys


def _printed(program, path):
    """Run it in a process of its own, as monkey patching can't be undone."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAM = """
import eventlet; eventlet.monkey_patch()
import json, os, sys, time
from eventlet import patcher
import nova.conf
nova.conf.CONF([], project="nova", default_config_files=[])
from nova.virt import images
from nova_rbd_backend.virt.boot import nova_fetch
from nova_rbd_backend.virt.boot.beside import Beside

threading = patcher.original("threading")
runs, synced, fsync = [], threading.Event(), os.fsync

def other():
    while True:
        runs.append(1)
        if waiting.is_set():
            synced.set()
        eventlet.sleep(0)

waiting = threading.Event()

def slow(fd):
    waiting.set()
    assert synced.wait(20), "no other greenlet runs during the fsync"
    fsync(fd)

class Glance:
    def get(self, *_args):
        raise NotImplementedError

    def download(self, _context, _image_id, data=None, dest_path=None, **_):
        assert dest_path in (sys.argv[1], None)
        # As when the socket has data all the time.
        for _chunk in range(512):
            data.write(b"x" * 65536)

os.fsync = slow
eventlet.spawn(other)
eventlet.sleep(0)
before = len(runs)
nova_fetch._Glance(Glance()).download(None, "image", sys.argv[1])
print(json.dumps([len(runs) - before, os.path.getsize(sys.argv[1])]))

def consume(incoming):
    return sum(len(incoming.take(at)) for at, _ in incoming.pieces())

def work(incoming):
    return nova_fetch.threads.run(consume, incoming, long=True)

def fetch():
    stream = nova_fetch._Glance(Glance(), beside)
    stream.download(None, "image", sys.argv[1])

beside = Beside(512 * 65536, work)
before = len(runs)
beside.feed(fetch)
print(json.dumps([len(runs) - before, beside.result()]))
"""


def test_others_run_while_a_download_is_written(tmp_path):
    """Into a file, which is synced, and then into the pool."""
    lines = _printed(PROGRAM, tmp_path / "file").splitlines()
    for line in lines:
        runs, size = json.loads(line)
        assert size == 512 * 65536
        assert runs >= size // (4 << 20)
    assert len(lines) == 2


REMOVAL = """
import eventlet; eventlet.monkey_patch()
import os, sys
from eventlet import patcher
from oslo_utils import fileutils
import nova.conf
nova.conf.CONF([], project="nova", default_config_files=[])
nova.conf.CONF.set_override("instances_path", sys.argv[1])
from nova_rbd_backend.virt.boot import staging

threading = patcher.original("threading")
waiting, removed, remove = threading.Event(), threading.Event(), os.unlink

def other():
    while not removed.is_set():
        if waiting.is_set():
            removed.set()
        eventlet.sleep(0)

def slow(path):
    waiting.set()
    assert removed.wait(20), "no other greenlet runs during the removal"
    remove(path)

fileutils.delete_if_exists.__defaults__ = (slow,)
eventlet.spawn(other)
with staging.staged_file("image") as staged:
    open(staged.path, "w").close()
print(waiting.is_set(), os.path.exists(staged.path))
"""


def test_others_run_while_a_file_is_removed(tmp_path):
    """A file system may take long to free the blocks of gigabytes."""
    assert _printed(REMOVAL, tmp_path).split() == ["True", "False"]
