# SPDX-License-Identifier: Apache-2.0

"""nova-rbd orphans with several clouds, and with changes during its run.

The clouds are stand-ins here; tests/e2e has tests with a real Nova.
"""

import json
import logging

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.cmd import clouds as clouds_
from nova_rbd_backend.cmd import main
from nova_rbd_backend.storage.images import purge
from tests.support.blank_disks import blank_disk

MIB = 1 << 20


class Cloud:
    """A cloud's Nova, which knows these instances.

    :param known: instances in its list
    :param later: instances that it knows only from the second question on
    :param fails_at: the number of the question at which it fails
    """

    def __init__(self, name, known=(), later=(), fails_at=None):
        self.name = name
        self._known = set(known)
        self._later = set(later)
        self._fails_at = fails_at
        self.asked = []

    def instances(self):
        return frozenset(self._known)

    def knows(self, uuid):
        self.asked.append(uuid)
        if len(self.asked) == self._fails_at:
            raise errors.NovaUnclear(f"Nova of {self.name} failed")
        known = uuid in self._known
        self._known |= self._later & {uuid}
        return known


@pytest.fixture
def disk(vms, instance, disks_deleted):
    name = f"{instance}_disk"
    blank_disk(vms, name, MIB)
    yield name
    for each in vms.trash.entries():
        if each.name == name:
            purge.purge_one(vms, name, each.image_id, force=True)


@pytest.fixture
def owned(vms):
    """The UUID of an instance that has a disk."""
    uuid = "00000000-0000-4000-8000-000000000001"
    blank_disk(vms, f"{uuid}_disk", MIB)
    yield uuid
    vms.remove(f"{uuid}_disk")


@pytest.fixture
def run(nova_rbd, monkeypatch, capsys):
    """Return a function that runs the command here, with the given clouds."""

    # cliff adds a handler that writes to the stream of this test.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*clouds, more=()):
        monkeypatch.setattr(clouds_, "connect", lambda *_: list(clouds))
        capsys.readouterr()
        words = ("orphans", "--older-than", "0s", *more, "-f", "json")
        status = main.main(["--config-file", str(nova_rbd.conf), *words])
        said = capsys.readouterr()
        rows = json.loads(said.out) if said.out.strip() else []
        found = {row["Name"]: (row["State"], row["Reason"]) for row in rows}
        return status, found, said.err

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


def test_orphan_is_known_to_none_of_several_clouds(run, disk, instance, owned):
    first, second = Cloud("first", [owned]), Cloud("second", [instance])
    third = Cloud("third")

    assert run(first, third)[:2] == (0, {disk: ("orphan", None)})
    assert run(first, second, third)[:2] == (0, {})


def test_instance_that_is_missing_from_the_list(run, disk, instance, owned):
    """For instance a soft-deleted server, or one in a cell that is down."""
    cloud = Cloud("first", [owned, instance])
    cloud.instances = lambda: frozenset([owned])

    assert run(cloud)[:2] == (0, {})
    assert cloud.asked == [instance]


def test_instance_that_appears_before_the_quarantine(
    vms, run, disk, instance, owned
):
    cloud = Cloud("first", [owned], later=[instance])

    status, found, _ = run(cloud, more=["--quarantine"])

    assert found == {disk: ("kept", "first has its instance now")}
    assert status == 1
    assert vms.directory.exists(disk)


def test_nova_that_fails_during_the_quarantine(
    vms, run, disk, instance, owned
):
    swap = f"{instance}_disk.swap"
    blank_disk(vms, swap, MIB)
    cloud = Cloud("first", [owned], fails_at=2)

    status, found, _ = run(cloud, more=["--quarantine"])

    failed = ("kept", "Nova of first failed")
    assert found == {disk: failed, swap: failed}
    assert status == 1
    assert len(cloud.asked) == 2, "a Nova that failed was asked again"
    assert vms.directory.exists(disk)


def test_nova_that_fails_at_the_first_question(vms, run, disk, owned):
    cloud = Cloud("first", [owned], fails_at=1)

    status, found, said = run(cloud, more=["--quarantine"])

    assert (status, found) == (1, {})
    assert "Nova of first failed" in said
    assert vms.directory.exists(disk)


def test_clouds_that_own_nothing_in_the_pool(vms, run, disk):
    """Most likely the operator has named the wrong clouds."""
    cloud = Cloud("first", ["00000000-0000-4000-8000-000000000002"])

    status, found, said = run(cloud)

    assert (status, found) == (0, {disk: ("orphan", None)})
    assert "are these all the clouds" in said
    status, found, said = run(cloud, more=["--quarantine"])
    assert (status, found) == (1, {})
    assert "taken for the wrong clouds" in said
    assert vms.directory.exists(disk)
