# SPDX-License-Identifier: Apache-2.0

"""Back to the old disks, or good-bye to them."""

from nova_rbd_backend import errors
from nova_rbd_backend.convert import (
    cutover,
    old_disks,
    qemu_img,
    rbd_disk,
    record,
)
from nova_rbd_backend.convert.job import Job, Row
from nova_rbd_backend.convert.offline import refuse_running
from nova_rbd_backend.convert.record import OldDisk, Record, Stage
from nova_rbd_backend.domains import disk_xml


def undo(job: Job, lose_changes: bool, dry_run: bool) -> list[Row]:
    """Give the guest its old disks again; delete those in Ceph.

    Killed, it is to be called again.

    :param lose_changes: although the guest has written to those in Ceph
    :raises ConversionRefused: it runs with them, or has written to them
    """
    written, given_up = _settled(job, dry_run)
    if written is not None:
        refuse_running(job)
    names = [d.name for d in written.disks] if written else _marked(job)
    if not names and not given_up:
        raise errors.ConversionRefused(
            f"{job.instance}: there is no conversion to be undone"
        )
    for name in names:
        _refuse_written(job, name, lose_changes)
    found = written or Record(job.instance, str(job.pool), Stage.CONVERTED, ())
    for disk in found.disks:
        _refuse_broken(job, disk)
    if not dry_run:
        _go_back(job, found, names)
    result = "would be undone" if dry_run else "undone"
    return given_up or _undone(found, names, result)


def _settled(job: Job, dry_run: bool) -> tuple[Record | None, list[Row]]:
    """What is in Ceph for good, and what never came so far and is deleted."""
    written = record.read(job.folder)
    if written is not None:
        cutover.refuse_other_pool(job, written)
    if written is None or written.state is Stage.CONVERTED or dry_run:
        return written, []
    kept = cutover.settle(job)
    return kept, [] if kept else cutover.rows(written, "given up")


def _go_back(job: Job, found: Record, names: list[str]) -> None:
    for disk in found.disks:
        old_disks.put_back(disk.path)
    elements = {disk.name: disk.element for disk in found.disks}
    xml = job.domain.xml()
    back = disk_xml.with_local(xml, found.pool, job.instance, elements)
    job.domain.define(back)
    for name in names:
        image = job.image(name)
        there = rbd_disk.find(job.pool, image)
        if there is not None and there.marked:
            rbd_disk.delete(job.pool, image, job.retention_seconds)
    record.remove(job.folder)


def _undone(found: Record, names: list[str], result: str) -> list[Row]:
    rows = {row.disk: row for row in cutover.rows(found, result)}
    return [rows.get(name, Row(name, "", "", 0, result)) for name in names]


def _marked(job: Job) -> list[str]:
    """Those that were copied by a run that was killed before its record."""
    return [
        disk.name
        for disk in job.local_disks()
        if (found := rbd_disk.find(job.pool, job.image(disk.name)))
        and found.marked
    ]


def _refuse_written(job: Job, name: str, lose_changes: bool) -> None:
    found = rbd_disk.find(job.pool, job.image(name))
    if found and found.written and not lose_changes:
        raise errors.ConversionRefused(
            f"{job.pool}/{job.image(name)}: the guest has written to it since "
            "it was converted, and the old disk does not have that: "
            "--lose-changes goes back nevertheless, and deletes it"
        )


def _refuse_broken(job: Job, disk: OldDisk) -> None:
    """It may be based on a file that somebody has removed."""
    place = old_disks.where(disk.path)
    if place is None:
        raise errors.ConversionRefused(
            f"{old_disks.aside(disk.path)} is not there: the old disk is "
            "lost, so there is no way back"
        )
    qemu_img.inspect(qemu_img.QemuImage(place, disk.format), job.instances)


def finish(job: Job, dry_run: bool) -> list[Row]:
    """Delete the old disks. There is no way back then.

    Killed, it is to be called again. Done: refused, as nothing is there.

    :raises ConversionRefused: they are in use, or the only ones
    """
    written = record.read(job.folder)
    result = "would be finished" if dry_run else "finished"
    if written is None:
        return _finish_moved(job, result, dry_run)
    cutover.refuse_other_pool(job, written)
    if written.state is not Stage.CONVERTED:
        raise _unfinished(job)
    if job.guest is not None:
        _refuse_local(job)
    for disk in written.disks:
        image = job.image(disk.name)
        if rbd_disk.find(job.pool, image) is None:
            raise errors.ConversionRefused(
                f"{job.pool}/{image} is not there, so {disk.path} may be the "
                "only one: nothing is deleted"
            )
    if dry_run:
        return cutover.rows(written, result)
    for disk in written.disks:
        old_disks.remove(disk.path)
        rbd_disk.unmark(job.pool, job.image(disk.name))
    record.remove(job.folder)
    return cutover.rows(written, result)


def _finish_moved(job: Job, result: str, dry_run: bool) -> list[Row]:
    """The instance came here from where it was converted, and only the marks.

    Nova has deleted its folder there, and the old disks with it.
    """
    on_rbd = disk_xml.rbd_disks(job.domain.xml(), str(job.pool), job.instance)
    names = [
        name
        for name in on_rbd
        if (found := rbd_disk.find(job.pool, job.image(name))) and found.marked
    ]
    if not names:
        raise _unfinished(job)
    _refuse_local(job)
    if not dry_run:
        for name in names:
            rbd_disk.unmark(job.pool, job.image(name))
    return [Row(name, "", "", 0, result) for name in names]


def _refuse_local(job: Job) -> None:
    if job.local_disks():
        raise errors.ConversionRefused(
            f"{job.instance}: the domain names a local disk, so nothing is "
            "deleted: convert it again"
        )


def _unfinished(job: Job) -> errors.ConversionRefused:
    return errors.ConversionRefused(
        f"{job.instance}: there is no conversion that has come to its end"
    )
