# SPDX-License-Identifier: Apache-2.0

"""Convert the disks of a guest that is shut off."""

import contextlib
import time
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import qemu_img
from nova_rbd_backend.ceph.transfer import Progress
from nova_rbd_backend.convert import cutover, old_disks, rbd_disk, record
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert.job import Job, Outcome, Plan
from nova_rbd_backend.convert.record import Record, Stage

_LOOK_SECONDS = 1.0


def convert(job: Job) -> Outcome:
    """Copy all disks of a stopped guest into Ceph, and switch it over.

    :raises ConversionRefused: the guest runs, or cannot be converted
    """
    refuse_running(job)
    earlier = cutover.settle(job)
    plans = jobs.plan(job, job.local_disks())
    stamps = {p.disk.path: old_disks.stamp(p.disk.path) for p in plans}
    for each in plans:
        bring(job, each, stays_off=True)
    disks = earlier.disks if earlier else ()
    disks += tuple(p.old_disk(verified=True) for p in plans)
    written = Record(job.instance, str(job.pool), Stage.SWITCHING, disks)
    record.write(job.folder, written)

    def check() -> None:
        changed = any(
            stamp != old_disks.stamp(old_disks.aside(path))
            for path, stamp in stamps.items()
        )
        if changed or job.domain.is_active():
            raise _started(job)

    return cutover.switch(job, written, check)


def refuse_running(job: Job) -> None:
    """:raises ConversionRefused: the guest is not shut off"""
    if job.domain.is_active():
        raise errors.ConversionRefused(
            f"{job.instance} is running: stop it with `openstack server "
            "stop`, or use --live"
        )


def bring(job: Job, plan: Plan, stays_off: bool) -> None:
    """Copy one disk and compare the two, or compare an earlier run's copy.

    :param stays_off: the guest could write to the disk, and must not run
    """
    disk, size = plan.disk, plan.size_bytes
    image = job.image(disk.name)

    def is_same(copy: str) -> bool:
        with _watched(job, f"compare {disk.name}", size, stays_off) as told:
            return qemu_img.are_same(
                disk.path, disk.format, job.qemu_path(copy), size, told
            )

    def fill(draft: str) -> None:
        with _watched(job, f"copy {disk.name}", size, stays_off) as told:
            target = job.qemu_path(draft)
            qemu_img.copy(disk.path, disk.format, target, size, told)
        if not is_same(draft):
            raise errors.ConversionError(
                f"{disk.path} and its copy are not the same; the copy is "
                "deleted: who writes to the old disk?"
            )

    if plan.found is not None:
        if is_same(image):
            return
        # The guest has run with the old disk since, and nobody uses the copy.
        rbd_disk.delete(job.pool, image, 0)
    rbd_disk.make(job.pool, image, size, fill, job.metadata(disk.name))


@contextlib.contextmanager
def _watched(
    job: Job, what: str, size: int, stays_off: bool
) -> Iterator[Progress]:
    """Lend a progress that ends the work when the guest is started."""
    looked = time.monotonic()
    with job.tell(what, size) as tell:

        def told(done: int) -> None:
            nonlocal looked
            tell(done)
            if stays_off and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if job.domain.is_active():
                    raise _started(job)

        yield told


def _started(job: Job) -> errors.ConversionError:
    return errors.ConversionError(
        f"{job.instance} was started meanwhile: it has its old disks as "
        "before; stop it and try again"
    )
