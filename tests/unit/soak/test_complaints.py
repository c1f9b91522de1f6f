# SPDX-License-Identifier: Apache-2.0

"""Errors of this backend are found in nova-compute's log."""

import datetime

import pytest

from tests.soak import complaints
from tests.soak.journey import GRACE_SECONDS, Journey

ID = "4f2e1c0a-0000-4000-8000-000000000001"
REQUEST = "req-00000000-1111-4222-8333-444444444444"
HEAD = f"[None {REQUEST} user - - default] [instance: {ID}] "
INSIDE = f"[instance: {ID}] "


def line(level, logger, text, head=HEAD):
    return f"2026-11-29 21:24:43.401 4242 {level} {logger} {head}{text}"


def traceback(last, file="nova_rbd_backend/storage/journal.py"):
    nova = "nova.compute.manager"
    return [
        line("ERROR", nova, "Instance failed to spawn: it went wrong"),
        line("ERROR", nova, "Traceback (most recent call last):", INSIDE),
        line("ERROR", nova, '  File "/x/nova/y.py", line 3, in z', INSIDE),
        line("ERROR", nova, f'  File "/x/{file}", line 3, in end', INSIDE),
        line("ERROR", nova, last, INSIDE),
        line("ERROR", nova, "", INSIDE),
        line("INFO", nova, "Took 3 seconds"),
    ]


OWN_FRAME = '  File "/x/nova_rbd_backend/virt/driver.py", line 3, in boot'
OURS = traceback("nova_rbd_backend.errors.DiskBusy: it is open")
SLIP = traceback("KeyError: 'source'")
NOVAS = traceback("nova.exception.NoValidHost: none", "nova/compute/x.py")


def test_traceback_is_one_complaint():
    (found,) = complaints.complaints(OURS)
    assert found.is_ours
    assert not found.is_slip
    assert found.instances == {ID}
    for part in (REQUEST, ID, "failed to spawn", "DiskBusy: it is open"):
        assert part in str(found)


def test_complaint_of_our_own_logger():
    own = line("ERROR", "nova_rbd_backend.virt.background.worker", "no purge")
    (found,) = complaints.complaints([own])
    assert found.is_ours


def test_two_errors_are_two_complaints():
    found = list(complaints.complaints([*OURS, *NOVAS, *SLIP[:-1]]))
    assert [(f.is_ours, f.is_slip) for f in found] == [
        (True, False),
        (False, False),
        (True, True),
    ]


def test_slip_of_nova_below_a_frame_of_ours():
    lines = traceback("KeyError: 'x'", "nova/virt/libvirt/driver.py")
    lines.insert(2, line("ERROR", "nova.compute.manager", OWN_FRAME, INSIDE))
    (found,) = complaints.complaints(lines)
    assert found.is_ours
    assert not found.is_slip


@pytest.fixture
def journey(tmp_path):
    return Journey(tmp_path / "journey")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "nova-compute.log"
    path.write_text("\n".join(["earlier", *OURS, *NOVAS]))
    return path


def judged(log, journey, met=(), offset=0):
    found = complaints.judge(log, offset, journey, set(met))
    return [str(each).rpartition("... ")[2] for each in found]


def test_what_nothing_explains_is_left(log, journey):
    assert judged(log, journey) == [
        "nova_rbd_backend.errors.DiskBusy: it is open"
    ]


def test_what_was_logged_before_does_not_count(log, journey):
    assert judged(log, journey, offset=log.stat().st_size) == []


def test_servers_with_two_actions_at_a_time(log, journey):
    assert judged(log, journey, met=[ID]) == []


def test_fault_explains_an_error_but_no_slip(log, journey, monkeypatch):
    at = datetime.datetime(2026, 11, 29, 21, 24, 40).timestamp()
    monkeypatch.setattr("tests.soak.journey.time.time", lambda: at)
    with journey.fault("kill_osd"):
        pass
    assert judged(log, journey) == []
    log.write_text("\n".join(SLIP))
    assert judged(log, journey) == ["KeyError: 'source'"]


def test_fault_explains_for_a_while(journey, monkeypatch):
    monkeypatch.setattr("tests.soak.journey.time.time", lambda: 1000.0)
    with journey.fault("kill_osd"):
        assert journey.explained(1000, 1000)
    assert journey.explained(990, 1000)
    assert not journey.explained(980, 999)
    assert journey.explained(1000 + GRACE_SECONDS, 2000)
    assert not journey.explained(1001 + GRACE_SECONDS, 2000)
