# SPDX-License-Identifier: Apache-2.0

"""Background work is retried until it is done."""

import threading
import time

from nova_rbd_backend.virt.background import worker


class Work:
    """Returns the given answers in turn, and then the last one for ever."""

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


def test_finished_work_runs_once():
    work = Work(True)
    worker.Background(work).start()
    work.wait_for(1)
    assert not work.called.acquire(timeout=0.2)


def test_unfinished_work_is_retried(monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.05)
    work = Work(False, False, True)
    worker.Background(work).start()
    work.wait_for(3)
    assert not work.called.acquire(timeout=0.2)


def test_start_retries_unfinished_work_at_once():
    work = Work(False, True)
    job = worker.Background(work)
    job.start()
    work.wait_for(1)
    job.start()  # does not wait for RETRY_SECONDS
    work.wait_for(1)
    assert work.times[1] - work.times[0] < worker.RETRY_SECONDS / 2


def test_pauses_grow_while_work_stays_unfinished(monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 1)
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", -1)
    monkeypatch.setattr(worker, "LONGEST_PAUSE_SECONDS", 5)
    pauses = worker._pauses()
    assert [next(pauses) for _ in range(4)] == [2, 4, 5, 5]


def test_stopped_work_is_not_retried():
    work = Work(False)
    job = worker.Background(work)
    job.start()
    work.wait_for(1)
    job.stop()
    assert not work.called.acquire(timeout=0.2)


def test_unfinished_work_keeps_no_other_from_running():
    jobs = []
    try:
        for _ in range(4):
            work = Work(False)
            jobs.append(worker.Background(work))
            jobs[-1].start()
            work.wait_for(1)
    finally:
        for job in jobs:
            job.stop()
