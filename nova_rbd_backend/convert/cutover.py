# SPDX-License-Identifier: Apache-2.0

"""Switch a guest over to its disks in Ceph, and settle interrupted runs."""

import dataclasses
from collections.abc import Callable

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import qemu_img
from nova_rbd_backend.convert import old_disks, rbd_disk, record
from nova_rbd_backend.convert.job import Job, Outcome
from nova_rbd_backend.convert.record import OldDisk, Record, Stage
from nova_rbd_backend.domains import disk_xml


def switch(job: Job, written: Record, check: Callable[[], None]) -> Outcome:
    """Rename the old disks, switch the domain over, compare what is left.

    If the process is killed, call it again: it continues. Once an old disk has
    its other name, no guest can be started with it any more.

    :param check: called when all old disks have their other names; raises to
        go back
    """
    names = {disk.name for disk in written.disks}
    for disk in written.disks:
        old_disks.set_aside(disk.path)
    try:
        check()
    except BaseException:
        for disk in written.disks:
            old_disks.put_back(disk.path)
        raise
    local = [disk for disk in job.local_disks() if disk.name in names]
    if local:
        xml = job.domain.xml()
        xml = disk_xml.with_rbd(xml, job.instance, local, job.access)
        job.domain.define(xml)
    for disk in written.disks:
        if not disk.verified:
            written = _verified(job, written, disk)
    written = dataclasses.replace(written, state=Stage.CONVERTED)
    record.write(job.folder, written)
    return written.disks, "converted"


def _verified(job: Job, written: Record, disk: OldDisk) -> Record:
    """Compare an old disk with the snap made when the guest was switched over.

    :returns: the record, which says that the disk is verified
    """
    image = f"{job.image(disk.name)}@{rbd_disk.MARK}"
    old, size = old_disks.aside(disk.path), disk.size_bytes
    with job.tell(f"compare {disk.name}", size) as progress:
        same = qemu_img.are_same(
            old, disk.format, job.qemu_path(image), size, progress
        )
    if not same:
        raise errors.ConversionError(
            f"{old} and {job.pool}/{image} are not the same: both are "
            "kept. To go back to the old disk, as it was when the guest was "
            "switched over, stop the guest and use --undo --lose-changes"
        )
    disks = tuple(
        dataclasses.replace(d, verified=True) if d is disk else d
        for d in written.disks
    )
    written = dataclasses.replace(written, disks=disks)
    record.write(job.folder, written)
    return written


def settle(job: Job) -> Record | None:
    """Finish or undo what an earlier run has left.

    :returns: the disks that are in Ceph for good; None: there are none
    """
    found = record.read(job.folder)
    if found is None or found.state is Stage.CONVERTED:
        return found
    refuse_other_pool(job, found)
    active = job.domain.is_active()
    kept = tuple(d for d in found.disks if _is_kept(job, d, active))
    if active and found.state is Stage.SWITCHING:
        job.domain.resume()
    if not kept:
        record.remove(job.folder)
        return None
    found = dataclasses.replace(found, state=Stage.SWITCHING, disks=kept)
    record.write(job.folder, found)
    return found


def refuse_other_pool(job: Job, found: Record) -> None:
    """:raises ConversionRefused: the disks are in another pool"""
    if found.pool != str(job.pool):
        raise errors.ConversionRefused(
            f"{job.instance}: an earlier run moved its disks into pool "
            f"{found.pool}, and this run's is {job.pool}: use the nova.conf "
            "and the --storage-class of the earlier run"
        )


def _is_kept(job: Job, disk: OldDisk, active: bool) -> bool:
    """Return whether a disk is in Ceph for good; if not, remove its copy.

    That is so if the guest uses the copy, or if it was about to and the copy
    is whole.
    """
    guest = job.domain
    xml = guest.live_xml() if active else guest.xml()
    used = disk.name in disk_xml.rbd_disks(xml, str(job.pool), job.instance)
    if not disk.draft:
        if not used:
            old_disks.put_back(disk.path)
        return used
    mirror = rbd_disk.Mirror(job.pool, job.image(disk.name), disk.draft)
    if used or (not active and mirror.is_marked()):
        mirror.show()
        return True
    # If QEMU was copying until now, the old disk has all that the guest wrote
    # to the copy.
    dev = disk_xml.dev_of(disk.element)
    followed = active and guest.give_up(dev)
    old_disks.put_back(disk.path)
    mirror.discard(keep_written=not followed)
    return False
