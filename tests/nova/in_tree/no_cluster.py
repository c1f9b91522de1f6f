# SPDX-License-Identifier: Apache-2.0

"""Answer in the place of a cluster, which Nova's own tests do not have.

Nova's tests replace its RBDDriver, or a method of an Rbd's driver, and assert
that it is called. So whatever they assert calls the RBDDriver that a test has
put in place. All else has one fixed answer here, since it is tested on a real
Ceph and with a real libvirt, in tests/nova, tests/functional and tests/e2e.

This is for a process that runs only Nova's tests: our modules stay changed.
"""

import inspect

from nova.storage import rbd_utils as nova_rbd_utils

from nova_rbd_backend.ceph.cluster import Cluster
from nova_rbd_backend.checks import run
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.store import Store
from nova_rbd_backend.virt import driver, imagebackend, rbd_utils
from nova_rbd_backend.virt.background import worker
from nova_rbd_backend.virt.pools import placement

#: Nova's default pool; most of its tests set neither a pool nor a type.
POOL = "rbd"
SPACE = dict.fromkeys(("total", "free", "used"), 100 << 30)


class Rbd(imagebackend.Rbd):
    """Our Rbd, with those parts of Nova's that its tests use or replace."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.driver = nova_rbd_utils.RBDDriver()
        replace(self.disk, exists=self._exists, size_bytes=self._size_bytes)

    @property
    def rbd_name(self):
        return self.disk.image

    def _exists(self):
        return self.driver.exists(self.rbd_name)

    def _size_bytes(self):
        return self.driver.size(self.rbd_name)


def replace(owner, **answers):
    """Replace methods of the owner by others with the same parameters."""
    for name, answer in answers.items():
        found = _parameters(getattr(owner, name))
        if _parameters(answer) != found:
            raise TypeError(f"{owner}.{name} takes {', '.join(found)}")
        setattr(owner, name, answer)


def _parameters(function):
    return list(inspect.signature(function).parameters)


def put_in_place():
    """Answer for the cluster from now on."""
    imagebackend.Rbd = Rbd
    replace(rbd_utils.RBDDriver, get_pool_info=lambda self: dict(SPACE))
    # A test that asks about a disk without replacing RBDDriver must fail.
    rbd_utils.RBDDriver.exists = rbd_utils.RBDDriver.size = _no_cluster
    # Nova's check that rados and rbd were imported, which its tests disable.
    rbd_utils.RBDDriver._check_for_import_failure = lambda self: None
    replace(
        Store,
        start=lambda self: None,
        read_pools=lambda self: (),
        pool_of=lambda self, image, first=None, is_new=False: POOL,
        disks_by_pool=lambda self, instance_uuid: {POOL: []},
        disks_within_reach=lambda self, instance_uuid: [],
        fence_within_reach=lambda self, instance_uuid: None,
        delete=_delete,
    )
    # Nova's tests start guests of text that is no XML.
    replace(
        driver.LibvirtDriver, _fence_for_start=lambda self, xml, instance: None
    )
    replace(
        journal,
        begin_spawn=lambda pool, instance_uuid, compute: None,
        end=lambda pool, entry: None,
    )
    replace(Cluster, fsid=lambda self: "fsid", catch_up=lambda self: None)
    replace(placement, space_bytes=lambda pool, of_class: dict(SPACE))
    replace(run, start_steps=lambda settings, libvirt: ())
    replace(worker.Background, start=lambda self: None)


def _no_cluster(self, name):
    raise AssertionError(f"there is no cluster to ask for {name}")


def _delete(self, instance_uuid, only=lambda _disk: True, by_move=None):
    """Delete disks as Nova's driver does, which its tests assert."""
    nova_rbd_utils.RBDDriver().cleanup_volumes(only)
    return {}
