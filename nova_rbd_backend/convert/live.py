# SPDX-License-Identifier: Apache-2.0

"""The disks of a guest that runs, and runs on.

QEMU itself copies, and writes to both until the guest is led over. At that
moment it stands still, for a snap of each copy: with it the old disk, which
nobody writes to any more, is compared afterwards.
"""

import time

from nova_rbd_backend import errors
from nova_rbd_backend.convert import cutover, rbd_disk, record
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert.job import Job, Plan, Row
from nova_rbd_backend.convert.offline import bring
from nova_rbd_backend.convert.qemu_img import STALL_SECONDS
from nova_rbd_backend.convert.record import Record, Stage
from nova_rbd_backend.domains import disk_xml
from nova_rbd_backend.domains.guest import Guest

_TICK_SECONDS = 0.5


def convert(job: Job) -> list[Row]:
    """Bring all its disks into Ceph beside the guest, and lead it over.

    :raises ConversionRefused: it does not run, or cannot be converted
    """
    if not job.domain.is_active():
        raise errors.ConversionRefused(
            f"{job.instance} is not running: leave out --live"
        )
    earlier = cutover.settle(job)
    if job.domain.is_paused():
        raise errors.ConversionRefused(
            f"{job.instance} is paused: unpause it, or stop it"
        )
    plans = jobs.plan(job, _used_disks(job))
    fixed = [each for each in plans if each.disk.is_cdrom]
    for each in fixed:
        bring(job, each, stays_off=False)
    moving = [each for each in plans if not each.disk.is_cdrom]
    for each in moving:
        if each.found:  # of a run when it was stopped: QEMU copies anew
            image = job.image(each.disk.name)
            rbd_disk.delete(job.pool, image, 0)
    disks = earlier.disks if earlier else ()
    disks += tuple(cutover.old_disk(each, verified=True) for each in fixed)
    return _Move(job, moving, disks).run(fixed)


def _used_disks(job: Job) -> list[disk_xml.LocalDisk]:
    """Those it runs with; each as it is defined, where that is the same."""
    defined = {(d.dev, d.path): d for d in job.local_disks()}
    return [
        defined.get((disk.dev, disk.path), disk)
        for disk in job.local_disks(live=True)
    ]


class _Move:
    """The disks that the guest writes to.

    :ivar _disks: those that it does not, or uses in Ceph already
    """

    def __init__(
        self,
        job: Job,
        plans: list[Plan],
        disks: tuple[record.OldDisk, ...],
    ):
        self._job = job
        self._plans = plans
        self._mirrors = [
            rbd_disk.Mirror.new(job.pool, job.image(plan.disk.name))
            for plan in plans
        ]
        self._disks = disks + tuple(
            cutover.old_disk(plan, verified=False, draft=mirror.draft)
            for plan, mirror in zip(plans, self._mirrors, strict=True)
        )

    def run(self, fixed: list[Plan]) -> list[Row]:
        self._note(Stage.MIRRORING)
        try:
            for plan, mirror in zip(self._plans, self._mirrors, strict=True):
                self._begin(plan, mirror)
            for plan in self._plans:
                self._wait(plan)
        except BaseException:
            # The guest is as before. What cannot be undone now, the next run
            # finds in the record.
            cutover.settle(self._job)
            raise
        written = self._note(Stage.SWITCHING)
        if self._plans:
            try:
                self._lead_over()
            except BaseException as error:
                self._end_standstill(error)
                raise
        for plan in fixed:
            self._guest.change_medium(self._on_rbd(plan))
        return cutover.switch(self._job, written, lambda: None)

    @property
    def _guest(self) -> Guest:
        return self._job.domain

    def _note(self, state: Stage) -> Record:
        job = self._job
        written = Record(job.instance, str(job.pool), state, self._disks)
        record.write(job.folder, written)
        return written

    def _on_rbd(self, plan: Plan) -> str:
        job = self._job
        return disk_xml.rbd_disk(plan.disk, job.instance, job.access)

    def _begin(self, plan: Plan, mirror: rbd_disk.Mirror) -> None:
        said = self._job.metadata(plan.disk.name)
        mirror.create(plan.facts.size_bytes, said)
        mirror.show()
        self._guest.mirror(plan.disk.dev, self._on_rbd(plan))
        mirror.hide()

    def _wait(self, plan: Plan) -> None:
        """Until the copy is whole.

        :raises ConversionError: it came to nothing, or does not come on
        """
        dev, guest = plan.disk.dev, self._guest
        done, moved = -1, time.monotonic()
        with self._job.tell(
            f"mirror {plan.disk.name}", plan.facts.size_bytes
        ) as tell:
            while dev not in disk_xml.ready_mirrors(guest.live_xml()):
                found = guest.mirrored(dev)
                if found is None:
                    raise errors.ConversionError(
                        f"the copy of {plan.disk.path} ended: the guest's log "
                        "in /var/log/libvirt/qemu says why"
                    )
                tell(found[0])
                if found[0] != done:
                    done, moved = found[0], time.monotonic()
                if time.monotonic() - moved > STALL_SECONDS:
                    raise errors.ConversionError(
                        f"the copy of {plan.disk.path} got no further for "
                        f"{STALL_SECONDS:g} s: check 'ceph health'"
                    )
                time.sleep(_TICK_SECONDS)

    def _lead_over(self) -> None:
        """The one moment in which the guest stands still.

        Each copy is whole by then, and gets its mark and its name before the
        guest writes to it: whoever lets it run on, no run takes it for half
        made.
        """
        began = time.monotonic()
        self._guest.pause()
        for mirror in self._mirrors:
            mirror.mark()
            mirror.show()
        for plan in self._plans:
            self._guest.pivot(plan.disk.dev)
        self._guest.resume()
        stood = time.monotonic() - began
        self._job.say(f"the guest stood still for {stood:.2f} s")

    def _end_standstill(self, error: BaseException) -> None:
        """Have the guest go on, each of its disks old or in Ceph.

        :raises ConversionError: that cannot be done now, or some are there
        """
        try:
            kept = cutover.settle(self._job)
        except Exception as again:
            raise errors.ConversionError(
                f"{self._job.instance} stands still, as its disks could not "
                f"be led over to Ceph ({error}): run this again once that is "
                f"mended, it goes on from there ({again})"
            ) from again
        if kept is not None:
            there = ", ".join(disk.name for disk in kept.disks)
            raise errors.ConversionError(
                f"{self._job.instance} runs on, with {there} in Ceph, and "
                f"the others could not be led over ({error}): run this again "
                "once that is mended, it goes on from there"
            ) from error
