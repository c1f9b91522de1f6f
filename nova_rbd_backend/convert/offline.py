# SPDX-License-Identifier: Apache-2.0

"""The disks of a guest that is shut off."""

import contextlib
import time
from collections.abc import Iterator

from nova_rbd_backend import errors
from nova_rbd_backend.convert import (
    cutover,
    old_disks,
    qemu_img,
    rbd_disk,
    record,
)
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert.job import Job, Plan, Row
from nova_rbd_backend.convert.record import Record, Stage

_LOOK_SECONDS = 1.0


def convert(job: Job) -> list[Row]:
    """Bring all its disks into Ceph, compare them, and lead it over.

    :raises ConversionRefused: it is not stopped, or cannot be converted
    """
    refuse_running(job)
    earlier = cutover.settle(job)
    plans = jobs.plan(job, job.local_disks())
    stamps = {p.disk.path: old_disks.stamp(p.disk.path) for p in plans}
    for each in plans:
        bring(job, each, stays_off=True)
    disks = earlier.disks if earlier else ()
    disks += tuple(cutover.old_disk(p, verified=True) for p in plans)
    written = Record(job.instance, str(job.pool), Stage.SWITCHING, disks)
    record.write(job.folder, written)

    def check() -> None:
        for path, stamp in stamps.items():
            if stamp != old_disks.stamp(old_disks.aside(path)):
                raise _started(job)
        _refuse_started(job)

    return cutover.switch(job, written, check)


def refuse_running(job: Job) -> None:
    """:raises ConversionRefused: it is not shut off"""
    if job.domain.is_active():
        raise errors.ConversionRefused(
            f"{job.instance} is running: stop it with `openstack server "
            "stop`, or use --live"
        )


def bring(job: Job, plan: Plan, stays_off: bool) -> None:
    """Copy one disk and compare it; done by an earlier run: compare it.

    :param stays_off: its guest, which could write to it, must not run
    """
    image = job.image(plan.disk.name)
    if plan.found is not None:
        if _is_same(job, plan, image, stays_off):
            return
        # The guest has run since, with the old disk: nobody has this one.
        rbd_disk.delete(job.pool, image, 0)

    def fill(draft: str) -> None:
        size = plan.facts.size_bytes
        with _told(job, f"copy {plan.disk.name}", size, stays_off) as told:
            qemu_img.copy(plan.source, job.qemu_path(draft), size, told)
        if not _is_same(job, plan, draft, stays_off):
            raise errors.ConversionError(
                f"{plan.disk.path} and its copy are not the same; the copy "
                "is deleted: who writes to the old disk?"
            )

    rbd_disk.make(
        job.pool,
        image,
        plan.facts.size_bytes,
        fill,
        job.metadata(plan.disk.name),
    )


def _is_same(job: Job, plan: Plan, image: str, stays_off: bool) -> bool:
    size = plan.facts.size_bytes
    with _told(job, f"compare {plan.disk.name}", size, stays_off) as told:
        return qemu_img.are_same(plan.source, job.qemu_path(image), size, told)


@contextlib.contextmanager
def _told(
    job: Job, what: str, size: int, stays_off: bool
) -> Iterator[qemu_img.Progress]:
    """Progress that ends the work when the guest is started meanwhile."""
    looked = time.monotonic()
    with job.tell(what, size) as tell:

        def told(done: int) -> None:
            nonlocal looked
            tell(done)
            if stays_off and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                _refuse_started(job)

        yield told


def _refuse_started(job: Job) -> None:
    if job.domain.is_active():
        raise _started(job)


def _started(job: Job) -> errors.ConversionError:
    return errors.ConversionError(
        f"{job.instance} was started meanwhile: it has its old disks as "
        "before; stop it and try again"
    )
