# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert is killed after each of its steps, and run again.

The guest has no operating system; test_live.py has a guest that writes.
"""

import os
import subprocess
import sys

import libvirt
import pytest

from nova_rbd_backend import names
from nova_rbd_backend.cmd import main as program
from nova_rbd_backend.storage.disks import provision
from tests.functional.convert import convert_child
from tests.functional.convert.local_instance import ASIDE, MIB
from tests.support import dying

pytestmark = pytest.mark.timeout(900)


class Killed:
    """An instance with two disks, and runs of nova-rbd that are killed."""

    def __init__(self, local):
        self.local = local
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

    def at_each_step(self, *words, prepare=lambda: None):
        """Run a conversion that dies after each step in turn.

        Yields after each run, once the old disks were found intact.

        :param prepare: called before each run
        """

        def run(step):
            prepare()
            done = subprocess.run(
                [
                    *(sys.executable, "-m", convert_child.__name__),
                    *(str(step), *self.words(*words)),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            print(done.stdout.strip())
            return dying.killed(done)

        for _ in dying.deaths(run, at_least=4):
            self.nothing_is_lost()
            yield

    def words(self, *words):
        conf = str(self.local.program.conf)
        return ["--config-file", conf, "convert", self.local.uuid, *words]

    def run(self, *words):
        assert program.main(self.words(*words)) == 0

    def run_again(self, *words, unless):
        """Run after a kill; it succeeds, or refuses with this text."""
        done = self.local.program.run("convert", self.local.uuid, *words)
        assert done.returncode == 0 or unless in done.stderr

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
def killed(local):
    return Killed(local)


def test_shut_off(vms, killed):
    for _ in killed.at_each_step():
        killed.run_again(unless="is converted")
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)


def test_killed_run_is_undone(vms, killed):
    for _ in killed.at_each_step():
        killed.run_again("--undo", unless="no conversion to be undone")
        # Unfinished images stay until the next run, or until the instance is
        # deleted.
        killed.is_as_before(vms, half_made=True)


def test_undo(vms, killed):
    killed.run()
    for _ in killed.at_each_step("--undo"):
        killed.run_again("--undo", unless="no conversion to be undone")
        killed.is_as_before(vms)
        killed.run()
        killed.is_converted(vms)


def test_live(vms, killed):
    local = killed.local
    local.start()
    for _ in killed.at_each_step("--live"):
        killed.run_again("--live", unless="is converted")
        assert local.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        killed.is_converted(vms)
        assert local.sources(live=True) == local.sources()
        local.stop()
        killed.run("--undo")
        killed.is_as_before(vms)
        local.start()


def test_live_run_is_resumed_with_the_guest_shut_off(vms, killed):
    """As if the host was switched off: the next run finds no guest running."""
    local = killed.local
    local.start()
    for _ in killed.at_each_step("--live"):
        local.stop()
        killed.run_again(unless="is converted")
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)
        local.start()


def test_finish(vms, killed):
    """Only the old disks are deleted."""
    killed.nothing_is_lost = lambda: killed.is_converted(vms)

    def prepare():
        # A finished conversion cannot be undone, so go back by hand.
        for name in vms.directory.names(killed.local.uuid):
            vms.remove(name)
        for name, data in killed.content.items():
            killed.local.path(name).write_bytes(data)
        killed.local.define()
        killed.run()

    for _ in killed.at_each_step("--finish", prepare=prepare):
        killed.run_again("--finish", unless="its end")
        killed.is_converted(vms)
        assert killed.local.files() == set()
        for name in killed.content:
            with vms.open(killed.local.image(name)) as disk:
                assert disk.snaps() == ()
    assert killed.local.files() == set()
