# SPDX-License-Identifier: Apache-2.0

"""One instance to be converted: what is known, and what may not be."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable

from nova_rbd_backend import errors, names
from nova_rbd_backend import metadata as metadata_
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.convert import qemu_img, rbd_disk
from nova_rbd_backend.domains import disk_xml
from nova_rbd_backend.domains.guest import Guest

#: Given what is done to which disk, and its size: told how far it is.
Tell = Callable[
    [str, int], contextlib.AbstractContextManager[qemu_img.Progress]
]


@dataclasses.dataclass(frozen=True)
class Job:
    """:ivar folder: the instance's
    :ivar instances: all instances', and what their disks are based on
    :ivar storage_class: the name of that of ``pool``
    :ivar guest: None: libvirt has no such domain here
    :ivar ceph_conf: None: where Ceph looks by itself
    """

    instance: str
    folder: str
    instances: str
    pool: Pool
    storage_class: str
    guest: Guest | None
    access: disk_xml.Access
    ceph_conf: str | None
    retention_seconds: int
    tell: Tell
    say: Callable[[str], None]

    @property
    def domain(self) -> Guest:
        """The guest.

        :raises ConversionRefused: it is not here
        """
        if self.guest is None:
            raise errors.ConversionRefused(
                f"libvirt on this host has no domain {self.instance}: run "
                "this on the host where the instance is"
            )
        return self.guest

    def image(self, disk: str) -> str:
        """What the disk is called in the pool."""
        return str(names.DiskName(self.instance, disk))

    def qemu_path(self, image: str) -> str:
        """What qemu-img opens it by."""
        path = names.ImagePath(self.pool.name, self.pool.namespace, image)
        return path.for_qemu(self.access.user, self.ceph_conf)

    def metadata(self, disk: str) -> dict[str, str]:
        """What the disk says of itself, as one that Nova booted."""
        project, image = disk_xml.owner(self.domain.xml())
        name = names.DiskName(self.instance, disk)
        return metadata_.describe(name, project, image, self.storage_class)

    def local_disks(self, live: bool = False) -> list[disk_xml.LocalDisk]:
        """Those that are not on RBD yet."""
        guest = self.domain
        xml = guest.live_xml() if live else guest.xml()
        return disk_xml.local_disks(xml, self.instance, self.folder)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A disk that is going to be converted.

    :ivar found: what an earlier run left in its place
    """

    disk: disk_xml.LocalDisk
    facts: qemu_img.ImageInfo
    found: rbd_disk.Copy | None

    @property
    def source(self) -> qemu_img.QemuImage:
        return qemu_img.QemuImage(self.disk.path, self.disk.format)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was done, or would be."""

    disk: str
    path: str
    format: str
    size_bytes: int
    result: str


def plan(job: Job, disks: list[disk_xml.LocalDisk]) -> list[Plan]:
    """Look at all that could be in the way, before anything is done.

    :raises ConversionRefused: something is; nothing has changed
    """
    if why := job.domain.keeps_old_state():
        raise errors.ConversionRefused(f"{job.instance}: {why}")
    plans = [_planned(job, disk) for disk in disks]
    _refuse_without_space(job, plans)
    return plans


def _planned(job: Job, disk: disk_xml.LocalDisk) -> Plan:
    _refuse_other_format(job, disk)
    source = qemu_img.QemuImage(disk.path, disk.format)
    facts = qemu_img.inspect(source, job.instances)
    image = job.image(disk.name)
    found = rbd_disk.find(job.pool, image)
    if found and not found.marked:
        raise errors.ConversionRefused(
            f"{job.pool}/{image} is there already, and no conversion made "
            "it: see whose it is with `nova-rbd show`, and delete or rename it"
        )
    if found and found.written:
        raise errors.ConversionRefused(
            f"{job.pool}/{image} was made of {disk.path}, and a guest has "
            "written to it since; now the domain names the old disk again. "
            "Which of them is right? For the old one, delete what is in Ceph "
            "with --undo --lose-changes"
        )
    return Plan(disk, facts, found)


def _refuse_other_format(job: Job, disk: disk_xml.LocalDisk) -> None:
    """Compare with what Nova found out when it made the disk."""
    path = os.path.join(job.folder, "disk.info")
    try:
        with open(path) as file:
            said = json.load(file).get(disk.path, disk.format)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise errors.ConversionRefused(f"{path}: {error}") from error
    if said != disk.format:
        raise errors.ConversionRefused(
            f"{disk.path} is {disk.format} to libvirt, and {said} to {path}: "
            "find out which it is, and correct the other"
        )


def _refuse_without_space(job: Job, plans: list[Plan]) -> None:
    needed = sum(p.facts.needed_bytes for p in plans if p.found is None)
    data_pool = job.pool.options.data_pool
    free = job.pool.cluster.capacity(job.pool.name, data_pool).free_bytes
    if needed > free:
        raise errors.ConversionRefused(
            f"the disks hold up to {needed >> 20} MiB, and pool "
            f"{data_pool or job.pool} has {free >> 20} MiB free: add OSDs, "
            "free space, or raise its quota"
        )
