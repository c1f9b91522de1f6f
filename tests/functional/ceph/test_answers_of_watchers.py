# SPDX-License-Identifier: Apache-2.0

"""An error or a late answer never shows that a client is dead or absent."""

import contextlib
import time

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.holders import Answer
from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect, make_user, watch

MIB = 1 << 20
# Longer than the OSD waits, with the time by which its answer may be late.
STANDSTILL_SECONDS = 2.5


@pytest.fixture
def image_id(vms, instance, disks_deleted):
    name = f"{instance}_disk"
    vms.create(name, MIB)
    return vms.directory.image_id(name)


@contextlib.contextmanager
def watching(ceph, key, answer):
    """Watch an object of pool vms as a guest watches its disk's header.

    :param answer: called in a thread of librados before the watcher answers
    """
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        own = watch(ioctx, key, lambda *_: answer())
        try:
            yield
        finally:
            own.close()


@pytest.mark.parametrize("seconds", [0, STANDSTILL_SECONDS])
def test_watcher_is_silent_only_if_the_osd_is_in_time(
    ceph, vms, image_id, seconds
):
    """The watcher lives, and the OSDs stand still while it is asked."""

    def answer():
        ceph.pause_osds()
        time.sleep(seconds)
        ceph.resume_osds()
        # So that the OSD's limit ends the question, and not this answer.
        time.sleep(STANDSTILL_SECONDS / 2)

    with watching(ceph, f"rbd_header.{image_id}", answer):
        answers = vms.holders.ask_watchers([image_id], 1)
    assert answers == ({} if seconds else {image_id: Answer(silent=True)})


def test_late_answer_of_a_mirror_daemon_tells_nothing(ceph, vms):
    def answer():
        ceph.pause_osds()
        time.sleep(STANDSTILL_SECONDS)
        ceph.resume_osds()
        time.sleep(STANDSTILL_SECONDS / 2)

    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        ioctx.write_full("rbd_mirroring", b"")
        with watching(ceph, "rbd_mirroring", answer):
            assert vms.holders.ask_mirrors(1) == Answer(silent=True)
        ioctx.remove_object("rbd_mirroring")


@pytest.fixture
def hasty(ceph):
    """Pool vms with the shortest time-out that nova.conf may set."""
    pool = Pool(connect(ceph, operation_timeout_seconds=1), "vms")
    pool.directory.exists("x")
    return pool


def test_question_that_no_osd_takes_tells_nothing(ceph, hasty):
    """librados gives the question up after as long as an OSD would.

    Many questions, because some are given up a few milliseconds early.
    """
    image_ids = [f"image{number}" for number in range(300)]
    ceph.pause_osds()
    try:
        assert hasty.holders.ask_watchers(image_ids, 1) == {}
    finally:
        ceph.resume_osds()


def test_question_that_an_osd_leaves_unanswered_is_an_error(
    ceph, hasty, image_id
):
    def answer():
        # The OSD says first that it has the question.
        time.sleep(0.7)
        ceph.pause_osds()
        time.sleep(2 * STANDSTILL_SECONDS)
        ceph.resume_osds()

    with (
        watching(ceph, f"rbd_header.{image_id}", answer),
        pytest.raises(errors.OperationTimedOut, match="no answer"),
    ):
        hasty.holders.ask_watchers([image_id], 2)


def test_refused_question_is_an_error(ceph, vms, image_id):
    user = make_user(ceph, "blind", mon="allow r", osd="allow r pool=images")
    blind = Pool(connect(ceph, user), "vms")
    with pytest.raises(errors.NotPermitted):
        blind.holders.ask_watchers([image_id], 1)
