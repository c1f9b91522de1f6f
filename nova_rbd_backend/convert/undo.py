# SPDX-License-Identifier: Apache-2.0

"""Go back to the old disks, or delete them."""

from collections.abc import Iterable

from nova_rbd_backend import errors
from nova_rbd_backend.convert import (
    cutover,
    local_disk,
    old_disks,
    rbd_disk,
    record,
)
from nova_rbd_backend.convert.job import Job, Outcome
from nova_rbd_backend.convert.offline import refuse_running
from nova_rbd_backend.convert.record import OldDisk, Stage
from nova_rbd_backend.domains import disk_xml


def undo(job: Job, lose_changes: bool, dry_run: bool) -> Outcome:
    """Give the guest its old disks again, and delete those in Ceph.

    If the process is killed, call it again.

    :param lose_changes: even if the guest has written to the disks in Ceph
    :raises ConversionRefused: the guest runs with the disks in Ceph, or has
        written to them
    """
    begun = written = record.read(job.folder)
    if begun is not None:
        cutover.refuse_other_pool(job, begun)
        if not dry_run:
            written = cutover.settle(job)
    if written is not None:
        refuse_running(job)
        disks = written.disks
    else:
        # Copied by a run that was killed before it wrote its record.
        disks = _marked(job, [disk.name for disk in job.local_disks()])
    if begun is None and not disks:
        raise errors.ConversionRefused(
            f"{job.instance}: there is no conversion to be undone"
        )
    for disk in disks:
        _refuse_written(job, disk.name, lose_changes)
        if disk.path:
            # Somebody may have removed its backing file.
            place = old_disks.where(disk.path)
            local_disk.inspect(place, disk.format, job.instances)
    if not dry_run:
        _go_back(job, disks)
    if begun is not None and written is None:
        return begun.disks, "given up"
    return disks, "would be undone" if dry_run else "undone"


def _go_back(job: Job, disks: tuple[OldDisk, ...]) -> None:
    old = [disk for disk in disks if disk.path]
    for disk in old:
        old_disks.put_back(disk.path)
    elements = {disk.name: disk.element for disk in old}
    xml = job.domain.xml()
    xml = disk_xml.with_local(xml, str(job.pool), job.instance, elements)
    job.domain.define(xml)
    for disk in _marked(job, [disk.name for disk in disks]):
        image = job.image(disk.name)
        rbd_disk.delete(job.pool, image, job.retention_seconds)
    record.remove(job.folder)


def _marked(job: Job, names: Iterable[str]) -> tuple[OldDisk, ...]:
    """Return those of the disks that have a whole copy in Ceph.

    Without a record, nothing but the name of a disk is known: it has no path.
    """
    return tuple(
        OldDisk(name, "", "", 0, "", verified=True)
        for name in names
        if (found := rbd_disk.find(job.pool, job.image(name))) and found.marked
    )


def _refuse_written(job: Job, name: str, lose_changes: bool) -> None:
    found = rbd_disk.find(job.pool, job.image(name))
    if found and found.written and not lose_changes:
        raise errors.ConversionRefused(
            f"{job.pool}/{job.image(name)}: the guest has written to it since "
            "it was converted, and the old disk does not have that: "
            "--lose-changes goes back nevertheless, and deletes it"
        )


def finish(job: Job, dry_run: bool) -> Outcome:
    """Delete the old disks; there is no way back then.

    If the process is killed, call it again. Without a conversion it is
    refused.

    :raises ConversionRefused: the old disks are in use, or the only ones
    """
    written = record.read(job.folder)
    result = "would be finished" if dry_run else "finished"
    if written is None:
        # The instance was converted on another host, and has moved here. Nova
        # has deleted its folder there together with the old disks, so that
        # only the marks are left.
        xml = job.domain.xml()
        names = disk_xml.rbd_disks(xml, str(job.pool), job.instance)
        disks = _marked(job, names)
        converted = bool(disks)
    else:
        cutover.refuse_other_pool(job, written)
        disks = written.disks
        converted = written.state is Stage.CONVERTED
    if not converted:
        raise errors.ConversionRefused(
            f"{job.instance}: there is no conversion that has come to its end"
        )
    if job.guest is not None and job.local_disks():
        raise errors.ConversionRefused(
            f"{job.instance}: the domain names a local disk, so nothing is "
            "deleted: convert it again"
        )
    for disk in disks:
        image = job.image(disk.name)
        if disk.path and rbd_disk.find(job.pool, image) is None:
            raise errors.ConversionRefused(
                f"{job.pool}/{image} is not there, so {disk.path} may be the "
                "only one: nothing is deleted"
            )
    if dry_run:
        return disks, result
    for disk in disks:
        if disk.path:
            old_disks.remove(disk.path)
        rbd_disk.unmark(job.pool, job.image(disk.name))
    if written is not None:
        record.remove(job.folder)
    return disks, result
