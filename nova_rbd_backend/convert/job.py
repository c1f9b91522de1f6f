# SPDX-License-Identifier: Apache-2.0

"""One instance to be converted, and what prevents its conversion."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence

from nova_rbd_backend import errors, names
from nova_rbd_backend import metadata as metadata_
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.ceph.transfer import Progress
from nova_rbd_backend.convert import local_disk, rbd_disk
from nova_rbd_backend.convert.record import OldDisk
from nova_rbd_backend.domains import disk_xml
from nova_rbd_backend.domains.guest import Guest

#: Called with what is done to which disk, and the disk's size. Lends a
#: function that shows the progress.
Tell = Callable[[str, int], contextlib.AbstractContextManager[Progress]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What is known of the instance.

    :ivar folder: the instance's
    :ivar instances: the folder of all instances, and of their backing files
    :ivar storage_class: the name of the class of ``pool``
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

        :raises ConversionRefused: it is not on this host
        """
        if self.guest is None:
            raise errors.ConversionRefused(
                f"libvirt on this host has no domain {self.instance}: run "
                "this on the host where the instance is"
            )
        return self.guest

    def image(self, disk: str) -> str:
        """Return the name of a disk in the pool."""
        return str(names.DiskName(self.instance, disk))

    def qemu_path(self, image: str) -> str:
        """Return the path by which qemu-img opens an image."""
        path = names.ImagePath(self.pool.name, self.pool.namespace, image)
        return path.for_qemu(self.access.user, self.ceph_conf)

    def metadata(self, disk: str) -> dict[str, str]:
        """Return the metadata of a disk, the same as if Nova had made it."""
        project, image = disk_xml.owner(self.domain.xml())
        name = names.DiskName(self.instance, disk)
        return metadata_.describe(name, project, image, self.storage_class)

    def local_disks(self, live: bool = False) -> list[disk_xml.LocalDisk]:
        """Return the disks that are not on RBD yet."""
        guest = self.domain
        xml = guest.live_xml() if live else guest.xml()
        return disk_xml.local_disks(xml, self.instance, self.folder)


#: The disks, and what was done to them or would be done.
Outcome = tuple[Sequence[OldDisk], str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A disk that is going to be converted.

    :ivar found: the copy that an earlier run has left
    """

    disk: disk_xml.LocalDisk
    size_bytes: int
    needed_bytes: int
    found: rbd_disk.Copy | None

    def old_disk(self, verified: bool = False, draft: str = "") -> OldDisk:
        """Return what the record has to have of the disk."""
        disk = self.disk
        return OldDisk(
            disk.name,
            disk.path,
            disk.format,
            self.size_bytes,
            disk.element,
            verified,
            draft,
        )


def plan(job: Job, disks: list[disk_xml.LocalDisk]) -> list[Plan]:
    """Check everything that could prevent the conversion. Changes nothing.

    :raises ConversionRefused: something prevents it
    """
    if why := job.domain.keeps_old_state():
        raise errors.ConversionRefused(f"{job.instance}: {why}")
    plans = [_planned(job, disk) for disk in disks]
    _refuse_without_space(job, plans)
    return plans


def _planned(job: Job, disk: disk_xml.LocalDisk) -> Plan:
    _refuse_other_format(job, disk)
    sizes = local_disk.inspect(disk.path, disk.format, job.instances)
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
            "Which of them is right? If the old one, delete the disk in Ceph "
            "with --undo --lose-changes"
        )
    return Plan(disk, *sizes, found)


def _refuse_other_format(job: Job, disk: disk_xml.LocalDisk) -> None:
    """Compare the format with what Nova noted when it made the disk."""
    path = os.path.join(job.folder, "disk.info")
    try:
        with open(path) as file:
            noted = json.load(file).get(disk.path, disk.format)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise errors.ConversionRefused(f"{path}: {error}") from error
    if noted != disk.format:
        raise errors.ConversionRefused(
            f"{disk.path} is {disk.format} to libvirt, and {noted} to {path}: "
            "find out which it is, and correct the other"
        )


def _refuse_without_space(job: Job, plans: list[Plan]) -> None:
    needed = sum(each.needed_bytes for each in plans if each.found is None)
    data_pool = job.pool.options.data_pool
    free = job.pool.cluster.capacity(job.pool.name, data_pool).free_bytes
    if needed > free:
        raise errors.ConversionRefused(
            f"the disks hold up to {needed >> 20} MiB, and pool "
            f"{data_pool or job.pool} has {free >> 20} MiB free: add OSDs, "
            "free space, or raise its quota"
        )
