# SPDX-License-Identifier: Apache-2.0

"""A process that runs one storage flow and kills itself at its n-th step.

Tests call :func:`start` and :func:`kill_at_each_step`; the process itself uses
the rest.

There is a step before each call that changes the cluster, and one after it.
Run as ``python -m tests.support.storage_child CONF FLOW NAME ARGUMENT STEP``;
with STEP 0 the process runs to its end.
"""

import subprocess
import sys
import uuid

from nova_rbd_backend import names
from nova_rbd_backend.ceph import cluster, lease
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import delete as delete_
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.images import purge
from nova_rbd_backend.storage.snapshots import detach as detach_
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support import dying

META = {"nova.instance": "it", "nova.project": "mine"}
GROWN_BYTES = 32 << 20
LIMIT_SECONDS = 60
# Short, to keep tests from waiting half a minute for a dead maker's lease.
LEASE_SECONDS = 3


def _command(ceph, flow, name, argument, step):
    command = [sys.executable, "-m", __name__, str(ceph.conf)]
    return [*command, flow, name, argument, str(step)]


def start(ceph, flow, name, argument):
    """Start a process that prints READY, then runs a flow to its end."""
    return subprocess.Popen(
        _command(ceph, flow, name, argument, 0),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def kill_at_each_step(ceph, flow, prepare):
    """Run a flow again and again, and have it die one step later each time.

    :param prepare: returns the name and the argument of the next run
    :returns: (step, name) of each run; the last run survived to its end
    """
    runs = []

    def run(step):
        name, argument = prepare()
        done = subprocess.run(
            _command(ceph, flow, name, argument, step),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        runs.append((step, name))
        return dying.killed(done)

    for _ in dying.deaths(run, at_least=8):
        pass
    return runs


def clone(vms, name, argument):
    pool_name, image, snap = argument.split("/")
    parent = names.SnapPath(pool_name, "", image, snap)
    provision.clone_disk(vms, name, parent, GROWN_BYTES, META)


def import_(vms, name, argument):
    provision.import_disk(vms, name, argument, GROWN_BYTES, META, workers=2)


def base(vms, name, argument):
    lease.SECONDS = LEASE_SECONDS
    making = bases.begin(vms, name)
    bases.finish(vms, making, argument, META, workers=2)


def delete(vms, name, argument):
    delete_.delete_disks(vms, argument)
    purge.purge(vms)


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
    "clone": clone,
    "import": import_,
    "delete": delete,
    "snapshot": snapshot,
    "detach": detach,
}


def main():
    conf, flow, name, argument, number = sys.argv[1:]
    settings = ClusterSettings(conf, "nova", 10, 30)
    vms = Pool(cluster.connect(settings), "vms")
    vms.directory.exists(name)
    print("READY", flush=True)
    dying.hook(
        dying.Countdown(int(number)),
        dying.changes(),
        dying.writes(),
        before=True,
        after=True,
    )
    FLOWS[flow](vms, name, argument)


if __name__ == "__main__":
    main()
