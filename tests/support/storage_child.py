# SPDX-License-Identifier: Apache-2.0

"""A process that runs one storage flow and dies in the middle of it.

Tests call :func:`kill_at_each_step` and :func:`kill_inside_librbd`; the
process itself uses the rest.
"""

import collections
import json
import os
import pathlib
import signal
import statistics
import threading
import uuid

from nova_rbd_backend import names
from nova_rbd_backend.ceph import cluster, incoming, lease
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks import ceph as checks
from nova_rbd_backend.checks.layouts import Layouts
from nova_rbd_backend.convert import rbd_disk
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage import fencing, journal
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete as delete_
from nova_rbd_backend.storage.disks import provision, rollback
from nova_rbd_backend.storage.images import discard, draft, purge, restore
from nova_rbd_backend.storage.snapshots import detach as detach_
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support import dying
from tests.testbed import process

META = {"nova.instance": "it", "nova.project": "mine"}
GROWN_BYTES = 32 << 20
JOURNALED = ImageOptions(
    features=("layering", "exclusive-lock", "deep-flatten", "journaling")
)
LIMIT_SECONDS = 60
# Short, to keep tests from waiting half a minute for a dead maker's lease.
LEASE_SECONDS = 3
PERIOD_SECONDS = 3600
# Each run has images of its own, so that no run disturbs another one.
AT_ONCE = 4


def kill_at_each_step(forks, ceph, flow, prepare, at_least=8):
    """Run a flow again and again, and have it die one step later each time.

    There is a step before each call that changes the cluster, and one after
    it.

    :param prepare: returns the name and the argument of the next run; called
        in several threads
    :returns: (step, name) of each run, in the order of the steps; the last
        run survived to its end
    """
    runs = []

    def run(step):
        name, argument = prepare()
        done = forks.run(
            die_at_step,
            *(str(ceph.conf), flow, name, argument, str(step)),
            limit_seconds=LIMIT_SECONDS,
        )
        print(done.stdout.strip())
        runs.append((step, name))
        return dying.killed(done)

    dying.deaths(run, at_least, at_once=AT_ONCE)
    return sorted(runs)


def kill_inside_librbd(forks, ceph, flow, prepare, folder, kills=30):
    """Run a flow again and again, and have it die inside calls of librbd.

    The kills are spread over the time of these calls, each of which takes
    several steps of its own.

    :param folder: for files of the processes
    :returns: (number, name) of each run, in the order of the kills
    """
    runs = []

    def run(kill, call=-1, seconds=0.0):
        name, argument = prepare()
        path = folder / f"died-{kill}"
        done = forks.run(
            die_in_call,
            *(str(ceph.conf), flow, name, argument),
            *(str(call), str(seconds), str(path)),
            limit_seconds=LIMIT_SECONDS,
        )
        assert done.returncode in (0, -signal.SIGALRM), done.stderr
        runs.append((kill, name))
        return done.stdout, dying.CallTimer.died_in(path)

    survivors = [json.loads(run(kill)[0]) for kill in (-3, -2, -1)]
    # How long each of the calls takes.
    calls = list(map(statistics.median, zip(*survivors, strict=True)))
    inside = []
    for kill in range(kills):
        call, seconds = 0, (kill + 0.5) / kills * sum(calls)
        while seconds > calls[call]:
            call, seconds = call + 1, seconds - calls[call]
        inside.append(run(kill, call, seconds)[1])
    found = collections.Counter(name for name in inside if name)
    print(f"{flow}: {found.total()} of {kills} kills fell inside {found}")
    # Not all, because a call may be faster than those before it, above all if
    # the machine was busier then.
    assert found.total() >= kills / 5
    return runs


def clone(vms, name, argument):
    pool_name, image, snap = argument.split("/")
    parent = names.SnapPath(pool_name, "", image, snap)
    provision.clone_disk(vms, name, parent, GROWN_BYTES, META)


def clone_journaled(vms, name, argument):
    """Make a disk of which rbd-mirror can copy each change."""
    clone(Pool(vms.cluster, "vms", options=JOURNALED), name, argument)


def discard_mirror(vms, name, argument):
    """Delete the image into which QEMU copied the disk of a running guest."""
    rbd_disk.Mirror(vms, name, argument).discard(keep_written=False)


def undo(vms, name, argument):
    """Settle what an earlier attempt has left of a disk."""
    draft.settle_attempts(vms, name)


def replace(vms, name, argument):
    pool_name, image, snap = argument.split("/")
    parent = names.SnapPath(pool_name, "", image, snap)
    provision.clone_disk(
        *(vms, name, parent, GROWN_BYTES, META), old_kept_seconds=0
    )


def import_(vms, name, argument):
    provision.import_disk(vms, name, argument, GROWN_BYTES, META, workers=2)


def grow(vms, name, argument):
    provision.grow(vms, name, int(argument))


def roll_back(vms, name, argument):
    rollback.roll_back(vms, name, argument)


def base(vms, name, argument):
    lease.SECONDS = LEASE_SECONDS
    making = bases.begin(vms, name)
    bases.finish(vms, making, argument, META, workers=2)


def base_of_qcow2(vms, name, argument):
    lease.SECONDS = LEASE_SECONDS
    making = bases.begin(vms, name)
    packed = draft.Packed(
        "qcow2", os.path.getsize(argument.replace(".qcow2", ".raw"))
    )
    bases.finish(vms, making, argument, META, packed=packed)


def base_of_incoming(vms, name, argument):
    lease.SECONDS = LEASE_SECONDS
    data = pathlib.Path(argument).read_bytes()
    coming = incoming.Incoming(len(data))

    def come():
        for offset in range(0, len(data), incoming.PIECE_BYTES):
            coming.put(data[offset : offset + incoming.PIECE_BYTES])
        coming.end()

    making = bases.begin(vms, name)
    threading.Thread(target=come, daemon=True).start()
    bases.finish(vms, making, coming, META, workers=2)


def delete(vms, name, argument):
    """Delete an instance's disks, and purge these alone.

    A purge of the whole pool would free what the runs beside this one have
    left.
    """
    found = vms.directory.ids(names.DiskName.prefix(argument))
    delete_.delete_disks(vms, argument)
    for disk, image_id in found.items():
        purge.purge_one(vms, disk, image_id)


def purge_by_turns(vms, name, argument):
    """Delete all images of a namespace, and purge what is due there."""
    lease.SECONDS = LEASE_SECONDS
    pool = Pool(vms.cluster, "vms", argument)
    for image in sorted(pool.directory.names("")):
        discard.discard(pool, image)
    purge.purge_by_turns(pool, PERIOD_SECONDS)


def restore_(vms, name, argument):
    (trashed,) = restore.find(vms, argument)
    restore.restore(vms, trashed)


def compare(vms, name, argument):
    """Compare the layouts on a new image, as nova-compute does at a start."""
    checks.probe_name = lambda: name
    layouts = Layouts(vms, "rights")
    checks._try_rights(vms, None, "disks", layouts)


def fence(vms, name, argument):
    fencing.fence_for_start(vms, argument)


def snapshot(vms, name, argument):
    """Make a snapshot up to the point where Glance would be told of it."""
    target = Pool(vms.cluster, argument)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(target, glance_id):
        making = snapshots.begin(target, vms, name, glance_id)
        snapshots.snap(making)
        snapshots.publish(target, making, META)


def detach(vms, name, argument):
    target = Pool(vms.cluster, argument)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(target, glance_id):
        made = snapshots.begin(target, vms, name, glance_id)
        snapshots.snap(made)
        entry = snapshots.publish(target, made, META).detachment
    accepted = journal.Offer.ACCEPTED
    entry = journal.record_offer(target, entry, accepted)
    detach_.detach(target, entry, 0)


FLOWS = {
    "base": base,
    "base of bytes that come": base_of_incoming,
    "base of qcow2": base_of_qcow2,
    "clone": clone,
    "clone journaled": clone_journaled,
    "compare": compare,
    "delete": delete,
    "detach": detach,
    "discard mirror": discard_mirror,
    "fence": fence,
    "grow": grow,
    "import": import_,
    "purge by turns": purge_by_turns,
    "replace": replace,
    "restore": restore_,
    "roll back": roll_back,
    "snapshot": snapshot,
    "undo": undo,
}


def _pool(conf, name):
    """Return the pool of the disks, once the connection is open."""
    settings = ClusterSettings(conf, "nova", 10, 30)
    vms = Pool(cluster.connect(settings), "vms")
    vms.directory.exists(name)
    return vms


def die_at_step(conf, flow, name, argument, number):
    """Run a flow, and die at its n-th step."""
    vms = _pool(conf, name)

    def say(text):
        print(text, flush=True)

    dying.hook(
        dying.Countdown(int(number), say),
        dying.changes(),
        dying.writes(),
        before=True,
        after=True,
    )
    FLOWS[flow](vms, name, argument)


def pause_in_copy(conf, name, argument, path):
    """Make a base of a qcow2 image, and wait before its data is copied.

    :param path: made when the copy would begin; remove it to go on
    """
    vms, begun = _pool(conf, name), pathlib.Path(path)

    def pause(method):
        if method == "copy":
            begun.touch()
            process.wait_for(
                "the test goes on", lambda: not begun.exists(), LIMIT_SECONDS
            )

    dying.hook(pause, dying.writes(), before=True)
    base_of_qcow2(vms, name, argument)


def die_in_call(conf, flow, name, argument, number, seconds, path):
    """Run a flow, and die in its n-th call of librbd; see dying.CallTimer.

    With number -1, run to the end, and print how long each call took.
    """
    vms = _pool(conf, name)
    timer = dying.CallTimer(int(number), float(seconds), pathlib.Path(path))
    dying.surround(timer, dying.librbd_calls(), dying.writes())
    FLOWS[flow](vms, name, argument)
    print(json.dumps(timer.seconds_of_calls))
