# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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

from nova_rbd_backend import names
from nova_rbd_backend.storage import cluster, disk, pool, provision, trash

META = {"nova.instance": "it", "nova.project": "mine"}
GROWN_BYTES = 32 << 20

CHANGES = {
    pool.Pool: (
        "omap_swap",
        "clone",
        "create",
        "set_metadata",
        "remove",
        "trash_move",
        "trash_remove",
        "_rename_listed",
        "_set_id",
        "_remove_id",
    ),
    disk.Disk: ("resize", "write", "flush", "remove_snap"),
}


def stepped(method, step):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        step()
        result = method(*args, **kwargs)
        step()
        return result

    return wrapper


def die_at(number):
    count = itertools.count(1)

    def step():
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    for door, methods in CHANGES.items():
        for name in methods:
            setattr(door, name, stepped(getattr(door, name), step))


def clone(vms, name, argument):
    pool_name, image, snap = argument.split("/")
    parent = names.SnapPath(pool_name, "", image, snap)
    provision.clone_disk(vms, name, parent, GROWN_BYTES, META)


def import_(vms, name, argument):
    provision.import_disk(vms, name, argument, GROWN_BYTES, META, workers=2)


def delete(vms, name, argument):
    trash.delete_disks(vms, argument)
    trash.purge(vms)


FLOWS = {"clone": clone, "import": import_, "delete": delete}


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
