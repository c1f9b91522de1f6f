# SPDX-License-Identifier: Apache-2.0

"""Convert the disks of a guest while it runs.

QEMU itself copies the disks, and writes to both the disk and its copy until
the guest is switched over. At that moment the guest is paused for a snap of
each copy. The old disks, to which nobody writes any more, are compared with
these snaps afterwards.
"""

import time

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.qemu_img import STALL_SECONDS
from nova_rbd_backend.convert import cutover, rbd_disk, record
from nova_rbd_backend.convert import job as jobs
from nova_rbd_backend.convert.job import Job, Outcome, Plan
from nova_rbd_backend.convert.offline import bring
from nova_rbd_backend.convert.record import OldDisk, Record, Stage
from nova_rbd_backend.domains import disk_xml

_TICK_SECONDS = 0.5


def convert(job: Job) -> Outcome:
    """Copy all disks into Ceph while the guest runs, and switch it over.

    :raises ConversionRefused: the guest does not run, or cannot be converted
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
        if each.found:
            # Of a run while the guest was stopped: QEMU copies the disk anew.
            rbd_disk.delete(job.pool, job.image(each.disk.name), 0)
    disks = earlier.disks if earlier else ()
    disks += tuple(each.old_disk(verified=True) for each in fixed)
    return _Move(job, moving, disks).run(fixed)


def _used_disks(job: Job) -> list[disk_xml.LocalDisk]:
    """Return the disks that the guest runs with.

    A disk's XML is that of the next start, if that has the same disk.
    """
    defined = {(d.dev, d.path): d for d in job.local_disks()}
    return [
        defined.get((disk.dev, disk.path), disk)
        for disk in job.local_disks(live=True)
    ]


class _Move:
    """The switch of a running guest.

    :param plans: the disks to which the guest writes
    :param disks: those to which it does not, or which it uses in Ceph already
    """

    def __init__(
        self, job: Job, plans: list[Plan], disks: tuple[OldDisk, ...]
    ):
        self._job = job
        self._guest = job.domain
        self._mirrors = [
            (plan, rbd_disk.Mirror(job.pool, job.image(plan.disk.name)))
            for plan in plans
        ]
        self._disks = disks + tuple(
            plan.old_disk(draft=mirror.draft) for plan, mirror in self._mirrors
        )

    def run(self, fixed: list[Plan]) -> Outcome:
        self._note(Stage.MIRRORING)
        try:
            for plan, mirror in self._mirrors:
                name, dev = plan.disk.name, plan.disk.dev
                mirror.create(plan.size_bytes, self._job.metadata(name))
                mirror.show()
                self._guest.mirror(dev, self._on_rbd(plan))
                mirror.hide()
            for plan, _ in self._mirrors:
                self._wait(plan)
        except BaseException as error:
            self._give_up(error)
            raise
        written = self._note(Stage.SWITCHING)
        if self._mirrors:
            try:
                self._switch_over()
            except BaseException as error:
                self._end_standstill(error)
                raise
        for plan in fixed:
            self._guest.change_medium(self._on_rbd(plan))
        return cutover.switch(self._job, written, lambda: None)

    def _give_up(self, error: BaseException) -> None:
        """Leave the guest as it was before.

        :raises ConversionError: its copies could not be removed; the next run
            finds them in the record
        """
        try:
            cutover.settle(self._job)
        except Exception as again:
            raise errors.ConversionError(
                f"{error}. {self._job.instance} has its old disks, but what "
                "was copied is still there: mend that and run this again, or "
                f"use --undo ({again})"
            ) from again

    def _note(self, state: Stage) -> Record:
        job = self._job
        written = Record(job.instance, str(job.pool), state, self._disks)
        record.write(job.folder, written)
        return written

    def _on_rbd(self, plan: Plan) -> str:
        job = self._job
        return disk_xml.rbd_disk(plan.disk, job.instance, job.access)

    def _wait(self, plan: Plan) -> None:
        """Wait until the copy is whole.

        :raises ConversionError: the copying ended early, or does not go on
        """
        dev, guest = plan.disk.dev, self._guest
        done, moved = -1, time.monotonic()
        what = f"mirror {plan.disk.name}"
        with self._job.tell(what, plan.size_bytes) as tell:
            while dev not in disk_xml.ready_mirrors(guest.live_xml()):
                copied = guest.copied_bytes(dev)
                if copied is None:
                    raise errors.ConversionError(
                        f"the copy of {plan.disk.path} ended: the guest's log "
                        "in /var/log/libvirt/qemu says why"
                    )
                tell(copied)
                if copied != done:
                    done, moved = copied, time.monotonic()
                if time.monotonic() - moved > STALL_SECONDS:
                    raise errors.ConversionError(
                        f"the copy of {plan.disk.path} made no progress for "
                        f"{STALL_SECONDS:g} s: check 'ceph health'"
                    )
                time.sleep(_TICK_SECONDS)

    def _switch_over(self) -> None:
        """Pause the guest, and switch it over to the copies.

        Each copy is whole by then. It gets its mark and its name before the
        guest writes to it, so that no run takes it for half made, whoever
        resumes the guest.
        """
        began = time.monotonic()
        self._guest.pause()
        for _, mirror in self._mirrors:
            mirror.mark()
            mirror.show()
        for plan, _ in self._mirrors:
            self._guest.pivot(plan.disk.dev)
        self._guest.resume()
        stood = time.monotonic() - began
        self._job.say(f"the guest stood still for {stood:.2f} s")

    def _end_standstill(self, error: BaseException) -> None:
        """Resume the guest, with each of its disks either old or in Ceph.

        :raises ConversionError: the guest cannot be resumed, or some of its
            disks are in Ceph
        """
        try:
            kept = cutover.settle(self._job)
        except Exception as again:
            raise errors.ConversionError(
                f"{self._job.instance} stands still, because its disks could "
                f"not be switched over to Ceph ({error}): mend that and run "
                f"this again, it continues from there ({again})"
            ) from again
        if kept is not None:
            there = ", ".join(disk.name for disk in kept.disks)
            raise errors.ConversionError(
                f"{self._job.instance} runs on, with {there} in Ceph, and "
                f"the other disks could not be switched over ({error}): mend "
                "that and run this again, it continues from there"
            ) from error
