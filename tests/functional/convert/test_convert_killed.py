# SPDX-License-Identifier: Apache-2.0

"""nova-rbd convert, killed after each of its steps, and run again.

The domain runs no system: what it writes is tested elsewhere.
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
from tests.functional.convert.local_instance import MIB
from tests.support import dying

ASIDE = ".nova-rbd-converted"

pytestmark = pytest.mark.timeout(900)


class Killed:
    """An instance with two disks, and runs that are killed."""

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
        """Run it killed after each step in turn; yields what it said."""
        said = ""

        def run(step):
            nonlocal said
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
            said = done.stdout.strip()
            return dying.killed(done)

        for _ in dying.deaths(run, at_least=4):
            self.nothing_is_lost()
            yield said

    def words(self, *words):
        conf = str(self.local.program.conf)
        return ["--config-file", conf, "convert", self.local.uuid, *words]

    def run(self, *words):
        assert program.main(self.words(*words)) == 0

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
        """:param half_made: what is not whole may be there, and is no disk"""
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


def test_stopped(vms, killed):
    for said in killed.at_each_step():
        print(said)
        state = killed.local.program.run("convert", killed.local.uuid)
        assert state.returncode == 0 or "is converted" in state.stderr
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)


def test_undone_instead_of_done_again(vms, killed):
    for said in killed.at_each_step():
        print(said)
        state = killed.local.program.run(
            "convert", killed.local.uuid, "--undo"
        )
        assert (
            state.returncode == 0
            or "no conversion to be undone" in state.stderr
        )
        # What is half made stays until the next run, or the instance goes.
        killed.is_as_before(vms, half_made=True)


def test_undo(vms, killed):
    killed.run()
    for said in killed.at_each_step("--undo"):
        print(said)
        state = killed.local.program.run(
            "convert", killed.local.uuid, "--undo"
        )
        assert (
            state.returncode == 0
            or "no conversion to be undone" in state.stderr
        )
        killed.is_as_before(vms)
        killed.run()
        killed.is_converted(vms)


def test_live(vms, killed):
    local = killed.local
    local.start()
    for said in killed.at_each_step("--live"):
        print(said)
        state = local.program.run("convert", local.uuid, "--live")
        assert state.returncode == 0 or "is converted" in state.stderr
        assert local.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        killed.is_converted(vms)
        assert local.sources(live=True) == local.sources()
        local.stop()
        killed.run("--undo")
        killed.is_as_before(vms)
        local.start()


def test_live_and_then_the_guest_is_gone(vms, killed):
    """The host was switched off: it goes on with the guest shut off."""
    local = killed.local
    local.start()
    for said in killed.at_each_step("--live"):
        print(said)
        local.stop()
        state = local.program.run("convert", local.uuid)
        assert state.returncode == 0 or "is converted" in state.stderr
        killed.is_converted(vms)
        killed.run("--undo")
        killed.is_as_before(vms)
        local.start()


def test_finish(vms, killed):
    """What is deleted is the old disks, and no other is lost."""
    killed.nothing_is_lost = lambda: killed.is_converted(vms)

    def prepare():
        # There is no way back but by hand.
        for name in vms.directory.names(killed.local.uuid):
            vms.remove(name)
        for name, data in killed.content.items():
            killed.local.path(name).write_bytes(data)
        killed.local.define()
        killed.run()

    for said in killed.at_each_step("--finish", prepare=prepare):
        print(said)
        again = killed.local.program.run(
            "convert", killed.local.uuid, "--finish"
        )
        assert again.returncode == 0 or "its end" in again.stderr
        killed.is_converted(vms)
        assert killed.local.files() == set()
        for name in killed.content:
            with vms.open(killed.local.image(name)) as disk:
                assert disk.snaps() == ()
    assert killed.local.files() == set()
