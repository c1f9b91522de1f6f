# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert is killed after each of its steps, and run again.

The guests have no operating system; test_live.py has a guest that writes.
"""

import os
import queue

import libvirt
import pytest

from nova_rbd_backend import names
from nova_rbd_backend.storage.disks import provision
from tests.functional.convert import convert_child
from tests.functional.convert.local_instance import ASIDE, MIB
from tests.support import dying

pytestmark = pytest.mark.timeout(900)

LIMIT_SECONDS = 120
# Several runs are killed at the same time, each with an instance of its own.
AT_ONCE = 4


class Killed:
    """An instance with two disks, and runs of nova-rbd that are killed."""

    def __init__(self, local, forks):
        self.local = local
        self._forks = forks
        self.content = {
            name: os.urandom(MIB) + bytes(MIB)
            for name in ("disk", "disk.eph0")
        }
        for dev, (name, data) in zip(
            ("vda", "vdb"), self.content.items(), strict=True
        ):
            local.path(name).write_bytes(data)
            local.add(name, dev, "raw")
        local.define()

    def dies(self, step, *words):
        """Run a conversion; return whether it died after that step."""
        done = self._nova_rbd(step, *words)
        print(done.stdout.strip())
        return dying.killed(done)

    def run(self, *words):
        done = self._nova_rbd(0, *words)
        assert done.returncode == 0, done.stderr

    def run_again(self, *words, unless):
        """Run after a kill; it succeeds, or refuses with this text."""
        done = self._nova_rbd(0, *words)
        assert done.returncode == 0 or unless in done.stderr

    def _nova_rbd(self, step, *words):
        conf = str(self.local.program.conf)
        command = ["--config-file", conf, "convert", self.local.uuid, *words]
        return self._forks.run(
            convert_child.nova_rbd,
            *(str(step), *command),
            limit_seconds=LIMIT_SECONDS,
        )

    def nothing_is_lost(self):
        for name, data in self.content.items():
            kept = self.local.path(name)
            if not kept.exists():
                kept = self.local.path(f"{name}{ASIDE}")
            assert kept.read_bytes() == data

    def is_converted(self, vms):
        local = self.local
        for name, data in self.content.items():
            with vms.open(local.image(name)) as disk:
                assert disk.read(0, 2 * MIB) == data
        assert sorted(vms.directory.names(local.uuid)) == [
            local.image(name) for name in self.content
        ]
        assert local.sources() == {
            "vda": f"vms/{local.image('disk')}",
            "vdb": f"vms/{local.image('disk.eph0')}",
        }

    def is_as_before(self, vms, half_made=False):
        """Check that the instance is as it was before the conversion.

        :param half_made: allow images that are not whole, and so are no disks
        """
        local = self.local
        found = vms.directory.names(local.uuid)
        if half_made:
            found = [
                name
                for name in found
                if names.final_name(name) == name
                and provision.is_whole(vms, name)
            ]
        assert found == []
        assert local.files() == {"disk", "disk.eph0"}
        assert local.sources() == {
            "vda": str(local.path("disk")),
            "vdb": str(local.path("disk.eph0")),
        }


@pytest.fixture
def at_each_step(new_local, forks):
    """Return a function that kills a conversion after each of its steps."""

    def kill(*words, check, survived, prepare=lambda killed: None):
        """Kill a conversion after one step after the other.

        :param prepare: called with the instance before each run
        :param check: called with the instance after each kill
        :param survived: called with the instance after a run to the end
        """
        idle = queue.SimpleQueue()
        for _ in range(AT_ONCE):
            idle.put(Killed(new_local(), forks))

        def run(step):
            killed = idle.get()
            prepare(killed)
            died = killed.dies(step, *words)
            (check if died else survived)(killed)
            idle.put(killed)
            return died

        dying.deaths(run, at_least=4, at_once=AT_ONCE)

    return kill


def test_shut_off(vms, at_each_step):
    def check(killed):
        killed.nothing_is_lost()
        killed.run_again(unless="is converted")
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)

    at_each_step(check=check, survived=lambda each: each.is_converted(vms))


def test_killed_run_is_undone(vms, at_each_step):
    def check(killed):
        killed.nothing_is_lost()
        killed.run_again("--undo", unless="no conversion to be undone")
        # Unfinished images stay until the next run, or until the instance is
        # deleted.
        killed.is_as_before(vms, half_made=True)

    def survived(killed):
        killed.is_converted(vms)
        killed.run("--undo")

    at_each_step(check=check, survived=survived)


def test_undo(vms, at_each_step):
    def prepare(killed):
        killed.run()
        killed.is_converted(vms)

    def check(killed):
        killed.nothing_is_lost()
        killed.run_again("--undo", unless="no conversion to be undone")
        killed.is_as_before(vms)

    at_each_step(
        "--undo",
        prepare=prepare,
        check=check,
        survived=lambda each: each.is_as_before(vms),
    )


def test_live(vms, at_each_step):
    def check(killed):
        local = killed.local
        killed.nothing_is_lost()
        killed.run_again("--live", unless="is converted")
        assert local.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        killed.is_converted(vms)
        assert local.sources(live=True) == local.sources()
        local.stop()
        killed.run("--undo")
        killed.is_as_before(vms)

    at_each_step(
        "--live",
        prepare=lambda each: each.local.start(),
        check=check,
        survived=lambda each: each.is_converted(vms),
    )


def test_live_run_is_resumed_with_the_guest_shut_off(vms, at_each_step):
    """As if the host was switched off: the next run finds no guest running."""

    def check(killed):
        killed.local.stop()
        killed.nothing_is_lost()
        killed.run_again(unless="is converted")
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)

    at_each_step(
        "--live",
        prepare=lambda each: each.local.start(),
        check=check,
        survived=lambda each: each.is_converted(vms),
    )


def test_finish(vms, at_each_step):
    """Only the old disks are deleted."""

    def prepare(killed):
        # A finished conversion cannot be undone, so go back by hand.
        for name in vms.directory.names(killed.local.uuid):
            vms.remove(name)
        for name, data in killed.content.items():
            killed.local.path(name).write_bytes(data)
        killed.local.define()
        killed.run()

    def check(killed):
        killed.is_converted(vms)
        killed.run_again("--finish", unless="its end")
        survived(killed)

    def survived(killed):
        killed.is_converted(vms)
        assert killed.local.files() == set()
        for name in killed.content:
            with vms.open(killed.local.image(name)) as disk:
                assert disk.snaps() == ()

    at_each_step("--finish", prepare=prepare, check=check, survived=survived)
