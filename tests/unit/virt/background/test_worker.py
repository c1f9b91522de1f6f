# SPDX-License-Identifier: Apache-2.0

"""Background work: again while it is not done, at once when there is more."""

import threading
import time

from nova_rbd_backend.virt.background import worker


class Work:
    """Says what it was told to, the last of it for ever."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.times = []
        self.called = threading.Semaphore(0)

    def __call__(self):
        self.times.append(time.monotonic())
        self.called.release()
        if len(self._answers) > 1:
            return self._answers.pop(0)
        return self._answers[0]

    def wait_for(self, count):
        for _ in range(count):
            assert self.called.acquire(timeout=10), len(self.times)


def test_once_when_all_is_done():
    work = Work(True)
    worker.Background(work).start()
    work.wait_for(1)
    assert not work.called.acquire(timeout=0.2)


def test_again_until_it_is_done(monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.05)
    work = Work(False, False, True)
    worker.Background(work).start()
    work.wait_for(3)
    assert not work.called.acquire(timeout=0.2)


def test_at_once_when_there_is_more():
    work = Work(False, True)
    job = worker.Background(work)
    job.start()
    work.wait_for(1)
    job.start()  # and not in RETRY_SECONDS
    work.wait_for(1)
    assert work.times[1] - work.times[0] < worker.RETRY_SECONDS / 2


def test_less_often_when_it_does_not_get_well(monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 1)
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", -1)
    monkeypatch.setattr(worker, "LONGEST_PAUSE_SECONDS", 5)
    pauses = worker._pauses()
    assert [next(pauses) for _ in range(4)] == [2, 4, 5, 5]


def test_stopped():
    work = Work(False)
    job = worker.Background(work)
    job.start()
    work.wait_for(1)
    job.stop()
    assert not work.called.acquire(timeout=0.2)
