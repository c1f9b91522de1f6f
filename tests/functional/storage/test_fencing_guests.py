# SPDX-License-Identifier: Apache-2.0

"""Real guests of a disk: a killed one, a frozen one, and two at once."""

import contextlib
import os
import signal
import time

import libvirt
import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import provision
from tests.support.clients import holders
from tests.support.clusters import started_ceph
from tests.support.guest_domain import SECRET, domain_xml
from tests.testbed.guest import console as console_
from tests.testbed.process import freeze, wait_for

MIB = 1 << 20
# Fencing takes 2 s, and more beside other tests; without it, Ceph takes 28 s.
LIMIT_SECONDS = 10.0


@pytest.fixture(scope="module")
def ceph():
    """A cluster with Ceph's own watch timeout, 30 s."""
    with started_ceph() as cluster:
        yield cluster


@pytest.fixture
def guest_disk(vms, instance, guest_image):
    name = f"{instance}_disk"
    provision.import_disk(vms, name, str(guest_image.raw), 64 * MIB)
    return name


@pytest.fixture
def boot(ceph, compute_host, guest_disk, tmp_path):
    """Return a function that starts a domain on the guest's disk.

    It returns the domain's console; each domain has its own.
    """
    compute_host.set_secret(SECRET, "nova", ceph.key("nova"))
    connection = libvirt.open(compute_host.libvirt_uri)
    domains = []

    def start():
        console = tmp_path / f"console-{len(domains)}"
        xml = domain_xml(f"vms/{guest_disk}", ceph.settings, console)
        name = f"guest-{len(domains)}"
        domains.append(
            connection.createXML(
                xml.replace(f"<name>vms-{guest_disk}<", f"<name>{name}<")
            )
        )
        return console

    yield start
    for domain in domains:
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
    connection.close()


@pytest.mark.quick
def test_killed_guest_starts_again(
    vms, instance, guest_disk, boot, compute_host, noted
):
    began = time.monotonic()
    console = boot()
    console_.wait_for_counter(console, 1)
    usual_seconds = time.monotonic() - began
    announced = console_.wait_for_counter(console, 40).counter
    (old,) = holders(vms, guest_disk)
    (pid,) = compute_host.qemu_pids()
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    fencing.fence_for_start(vms, instance)
    fenced_seconds = time.monotonic() - began
    again = boot()
    console_.wait_for_counter(again, announced + 1)
    seconds = time.monotonic() - began
    print(
        f"fenced after {fenced_seconds:.2f} s, first write after "
        f"{seconds:.2f} s; a guest's first write takes {usual_seconds:.2f} s"
    )
    assert fenced_seconds < LIMIT_SECONDS
    assert seconds < LIMIT_SECONDS + 2 * usual_seconds
    (marker,) = console_.read(again).markers
    assert marker["boots"] == 2
    assert marker["counter"] >= announced
    assert marker["missing"] == 0
    (new,) = holders(vms, guest_disk)
    assert new.lock_cookie is not None
    assert new.client_id != old.client_id
    assert [fact.address for fact in noted] == [old.address]


def test_frozen_guest_loses_its_disk(
    vms, instance, guest_disk, boot, compute_host
):
    old = boot()
    announced = console_.wait_for_counter(old, 40).counter
    (pid,) = compute_host.qemu_pids()
    freeze(pid)
    fencing.fence_for_start(vms, instance)
    new = boot()
    console_.wait_for_counter(new, announced + 40)
    os.kill(pid, signal.SIGCONT)
    wait_for(
        "the frozen guest's writes fail",
        lambda: console_.read(old).failed,
        console_.LIMIT_SECONDS,
    )
    now = console_.read(new).counter
    console = console_.wait_for_counter(new, now + 40)
    assert console.failed == ()
    # The disk has the counter that only the new guest can have announced.
    for each in compute_host.qemu_pids():
        os.kill(each, signal.SIGKILL)
    fencing.fence_for_start(vms, instance)
    third = console_.wait_for_boot(boot()).markers[0]
    assert third["boots"] == 3
    assert third["counter"] >= console.counter
    assert third["missing"] == 0


def test_second_guest_is_refused(vms, instance, boot, noted):
    console = boot()
    counter = console_.wait_for_counter(console, 10).counter
    with pytest.raises(errors.DiskInUse):
        fencing.fence_for_start(vms, instance)
    seen = console_.wait_for_counter(console, counter + 40)
    assert seen.failed == ()
    assert not noted
