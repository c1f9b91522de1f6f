# SPDX-License-Identifier: Apache-2.0

"""From the old disks to those in Ceph: what a killed run left is finished."""

import dataclasses
from collections.abc import Callable

from nova_rbd_backend import errors
from nova_rbd_backend.convert import old_disks, qemu_img, rbd_disk, record
from nova_rbd_backend.convert.job import Job, Plan, Row
from nova_rbd_backend.convert.record import OldDisk, Record, Stage
from nova_rbd_backend.domains import disk_xml


def old_disk(plan: Plan, verified: bool, draft: str = "") -> OldDisk:
    """What is to be remembered of a disk."""
    disk = plan.disk
    return OldDisk(
        disk.name,
        disk.path,
        disk.format,
        plan.facts.size_bytes,
        disk.element,
        verified,
        draft,
    )


def switch(job: Job, written: Record, check: Callable[[], None]) -> list[Row]:
    """Set the old disks aside, lead the domain over, compare what is not.

    Again, after it was killed: goes on. Once a disk has its other name no
    guest can be started with it any more.

    :param check: called when that is so; raises to go back
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
        job.domain.define(
            disk_xml.with_rbd(
                job.domain.xml(), job.instance, local, job.access
            )
        )
    for disk in written.disks:
        if not disk.verified:
            written = _verified(job, written, disk)
    written = dataclasses.replace(written, state=Stage.CONVERTED)
    record.write(job.folder, written)
    return rows(written, "converted")


def _verified(job: Job, written: Record, disk: OldDisk) -> Record:
    """Compare the snap made when the guest was led over."""
    image = f"{job.image(disk.name)}@{rbd_disk.MARK}"
    old = qemu_img.QemuImage(old_disks.aside(disk.path), disk.format)
    with job.tell(f"compare {disk.name}", disk.size_bytes) as progress:
        same = qemu_img.are_same(
            old, job.qemu_path(image), disk.size_bytes, progress
        )
    if not same:
        raise errors.ConversionError(
            f"{old.path} and {job.pool}/{image} are not the same: both are "
            "kept. For the old disk, as it was when the guest was led over, "
            "stop the guest and use --undo --lose-changes"
        )
    disks = tuple(
        dataclasses.replace(d, verified=True) if d is disk else d
        for d in written.disks
    )
    written = dataclasses.replace(written, disks=disks)
    record.write(job.folder, written)
    return written


def rows(written: Record, result: str) -> list[Row]:
    """One for each disk."""
    return [
        Row(disk.name, disk.path, disk.format, disk.size_bytes, result)
        for disk in written.disks
    ]


def settle(job: Job) -> Record | None:
    """Find what an earlier run left: end it, or lead it to its end.

    :returns: of disks that are in Ceph for good; None: there is none
    """
    found = record.read(job.folder)
    if found is None or found.state is Stage.CONVERTED:
        return found
    refuse_other_pool(job, found)
    active = job.domain.is_active()
    kept = tuple(disk for disk in found.disks if _is_over(job, disk, active))
    if active and found.state is Stage.SWITCHING:
        job.domain.resume()
    if not kept:
        record.remove(job.folder)
        return None
    found = dataclasses.replace(found, state=Stage.SWITCHING, disks=kept)
    record.write(job.folder, found)
    return found


def refuse_other_pool(job: Job, found: Record) -> None:
    """:raises ConversionRefused: its disks are in another one"""
    if found.pool != str(job.pool):
        raise errors.ConversionRefused(
            f"{job.instance}: an earlier run brought its disks into pool "
            f"{found.pool}, and this one's is {job.pool}: use the nova.conf "
            "and the --storage-class of then"
        )


def _is_over(job: Job, disk: OldDisk, active: bool) -> bool:
    """Whether the guest uses the copy, or was to; if not the copy goes."""
    guest = job.domain
    xml = guest.live_xml() if active else guest.xml()
    over = disk.name in disk_xml.rbd_disks(xml, str(job.pool), job.instance)
    if not disk.draft:
        if not over:
            old_disks.put_back(disk.path)
        return over
    mirror = rbd_disk.Mirror(job.pool, job.image(disk.name), disk.draft)
    if over or (not active and mirror.is_marked()):
        mirror.show()
        return True
    # What it wrote to a copy that went on until now, the old disk has too.
    dev = disk_xml.dev_of(disk.element)
    whole = active and guest.give_up(dev)
    old_disks.put_back(disk.path)
    mirror.discard(keep_written=not whole)
    return False
