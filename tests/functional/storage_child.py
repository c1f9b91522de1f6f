# SPDX-License-Identifier: Apache-2.0

"""A process that runs one storage flow and kills itself at its n-th step.

A step is the moment before and after each call that changes the cluster.
``python -m tests.functional.storage_child CONF FLOW NAME ARGUMENT STEP``;
STEP 0: run to the end.
"""

import functools
import itertools
import os
import signal
import sys
import uuid

from nova_rbd_backend import names
from nova_rbd_backend.storage import (
    base_cache,
    cluster,
    detaching,
    journal,
    lease,
    provision,
    purge,
    snapshots,
    trash,
)
from tests.testbed import cluster_changes

META = {"nova.instance": "it", "nova.project": "mine"}
GROWN_BYTES = 32 << 20


def die_at(number):
    count = itertools.count(1)

    def step():
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            step()
            result = method(*args, **kwargs)
            step()
            return result

        return wrapper

    cluster_changes.wrap(
        stepped, cluster_changes.CHANGES, cluster_changes.WRITES
    )


def clone(vms, name, argument):
    pool_name, image, snap = argument.split("/")
    parent = names.SnapPath(pool_name, "", image, snap)
    provision.clone_disk(vms, name, parent, GROWN_BYTES, META)


def import_(vms, name, argument):
    provision.import_disk(vms, name, argument, GROWN_BYTES, META, workers=2)


def base(vms, name, argument):
    # So that a test need not wait half a minute for a lease to end.
    lease.SECONDS, lease._RENEW_SECONDS = 3, 1.0
    making = base_cache.begin(vms, name)
    base_cache.finish(vms, making, argument, META, workers=2)


def delete(vms, name, argument):
    trash.delete_disks(vms, argument)
    purge.purge(vms)


def snapshot(vms, name, argument):
    """Up to the moment when Glance has it, and has been told nothing yet."""
    target = vms.cluster.pool(argument)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(target, glance_id):
        making = snapshots.begin(target, vms, name, glance_id)
        snapshots.snap(making)
        snapshots.publish(target, making, META)


def detach(vms, name, argument):
    target = vms.cluster.pool(argument)
    glance_id = str(uuid.uuid4())
    with snapshots.sole_maker(target, glance_id):
        made = snapshots.begin(target, vms, name, glance_id)
        snapshots.snap(made)
        entry = snapshots.publish(target, made, META).detachment
    accepted = journal.Offer.ACCEPTED
    entry = journal.record_offer(target, entry, accepted)
    detaching.detach(target, entry, 0)


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
    settings = cluster.ClusterSettings(conf, "nova", 10, 30)
    vms = cluster.connect(settings).pool("vms")
    vms.exists(name)
    print("READY", flush=True)
    die_at(int(number))
    FLOWS[flow](vms, name, argument)


if __name__ == "__main__":
    main()
