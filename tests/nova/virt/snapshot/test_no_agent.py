# SPDX-License-Identifier: Apache-2.0

"""A guest whose agent is not connected, under a real QEMU."""

import contextlib
import uuid

import libvirt
import pytest

from tests.nova.drivers import new_driver
from tests.nova.virt.snapshot.agent import marks
from tests.nova.virt.snapshot.conftest import DOMAIN


@pytest.fixture
def deaf(compute_host):
    """A running guest that has nothing to boot."""
    xml = DOMAIN.format(name="deaf", uuid=uuid.uuid4(), disk="")
    with contextlib.closing(libvirt.open(compute_host.libvirt_uri)) as here:
        domain = here.createXML(xml)
        yield domain
        domain.destroy()


@pytest.fixture
def instance(deaf):
    from nova import objects

    objects.register_all()
    return objects.Instance(
        id=1,
        uuid=deaf.UUIDString(),
        image_ref="",
        system_metadata={"image_hw_qemu_guest_agent": "yes"},
    )


def snapshot(driver, instance):
    from nova_rbd_backend.virt.snapshot import quiesce

    with quiesce.scope(driver, None, instance), quiesce.frozen():
        pass


def test_guest_is_not_taken_for_frozen(settings, instance, tmp_path, caplog):
    caplog.set_level("INFO")
    snapshot(new_driver(), instance)
    assert marks(tmp_path) == []
    assert "as after a power loss" in caplog.text
    assert "its agent is not connected" in caplog.text
    assert not [r for r in caplog.records if "domfsthaw" in r.getMessage()]


def test_agent_that_goes_away_meanwhile(
    settings, instance, tmp_path, caplog, monkeypatch
):
    """It may have frozen file systems before it went."""
    from nova_rbd_backend.domains import agent

    monkeypatch.setattr(agent, "is_away", lambda _xml: False)
    snapshot(new_driver(), instance)
    (mark,) = marks(tmp_path)
    assert mark.name == instance.uuid
    (said,) = [r for r in caplog.records if "domfsthaw" in r.getMessage()]
    assert said.levelname == "WARNING"
    assert "neither froze nor thawed" in said.getMessage()


def test_guest_that_waits_for_a_thaw_keeps_its_mark(
    settings, instance, tmp_path, monkeypatch
):
    from nova_rbd_backend.virt.snapshot import frozen

    frozen.mark(instance.uuid)
    monkeypatch.setattr(frozen, "_left", {instance.uuid})
    snapshot(new_driver(), instance)
    assert len(marks(tmp_path)) == 1
