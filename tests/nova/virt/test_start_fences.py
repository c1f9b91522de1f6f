# SPDX-License-Identifier: Apache-2.0

"""No guest is started while another client of its disk may be alive.

See also tests/functional/storage/test_fencing.py.
"""

import uuid
from unittest import mock

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import headers
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from tests.support.clients import Client

MIB = 1 << 20
DOMAIN = """
<domain type='test'>
  <name>guest-{uuid}</name><uuid>{uuid}</uuid><memory>1024</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='vms/{uuid}_disk'/><target dev='vda'/>
    </disk>
  </devices>
</domain>
"""


@pytest.fixture
def instance(driver, vms):
    """An instance whose root disk exists."""
    from nova import objects

    made = objects.Instance(
        id=1,
        uuid=str(uuid.uuid4()),
        flavor=objects.Flavor(extra_specs={}),
        system_metadata={},
        numa_topology=None,
        resources=None,
        task_state=None,
    )
    vms.create(f"{made.uuid}_disk", MIB)
    return made


@pytest.fixture
def client(ceph, instance):
    """A process that has the instance's disk open, and holds its lock."""
    client = Client(ceph, f"{instance.uuid}_disk")
    assert client.write("old") == "wrote"
    yield client
    client.kill()


def start(driver, instance, **kwargs):
    xml = DOMAIN.format(uuid=instance.uuid)
    return driver._create_guest(None, xml, instance, **kwargs)


def warnings(caplog):
    return [r.message for r in caplog.records if r.levelname == "WARNING"]


def test_dead_client_is_fenced_and_logged(driver, instance, client, caplog):
    client.kill()
    guest = start(driver, instance)
    assert guest.is_active()
    lines = [w for w in warnings(caplog) if "Fenced" in w]
    assert lines
    line = lines[-1]  # a slow cluster may need a second round
    assert f"vms/{instance.uuid}_disk" in line
    assert f"client.{client.client_id} at" in line
    assert "7.0 days, its lock is broken" in line


def test_nothing_is_logged_without_another_client(driver, instance, caplog):
    assert start(driver, instance).is_active()
    assert not [w for w in warnings(caplog) if "Fenced" in w]


def test_disk_without_exclusive_lock_gets_it(driver, vms, instance, caplog):
    """The image was made by Nova's own backend."""
    name = f"{instance.uuid}_disk"
    vms.remove(name)
    options = ImageOptions(features=("layering",))
    Pool(vms.cluster, "vms", options=options).create(name, MIB)
    start(driver, instance)
    (line,) = [w for w in warnings(caplog) if "exclusive-lock" in w]
    assert f"vms/{name} had no exclusive-lock, and has it from now on" in line
    with vms.open(name) as disk:
        assert "exclusive-lock" in disk.layout().features


def test_disk_that_cannot_get_exclusive_lock(
    driver, vms, instance, caplog, monkeypatch
):
    name = f"{instance.uuid}_disk"
    refusal = errors.NotSupported("no", pool="vms", image=name)
    monkeypatch.setattr(
        headers.Headers, "has_exclusive_lock", mock.Mock(side_effect=refusal)
    )
    assert start(driver, instance).is_active()
    (line,) = [w for w in warnings(caplog) if "exclusive-lock" in w]
    assert f"vms/{name} has no exclusive-lock, so its guest" in line
    assert str(refusal) in line


@pytest.mark.parametrize(
    "how", [{}, {"pause": True}, {"power_on": False, "pause": True}]
)
def test_living_client_keeps_the_guest_from_starting(
    driver, instance, client, how
):
    """Nova starts a guest paused until its ports are plugged in."""
    from nova import exception

    with pytest.raises(exception.StorageError) as caught:
        start(driver, instance, **how)
    assert f"vms/{instance.uuid}_disk" in str(caught.value)
    assert "stop the guest or power the host off" in str(caught.value)
    with pytest.raises(exception.InstanceNotFound):
        driver._host.get_guest(instance)


def test_domain_that_is_not_started_is_defined(driver, instance, client):
    assert not start(driver, instance, power_on=False).is_active()


def test_spawn_refuses_before_it_makes_a_disk(driver, vms, instance, client):
    """An evacuation: the disks are another host's."""
    from nova import exception

    instance.host = "another"
    before = vms.directory.names(instance.uuid)
    with pytest.raises(exception.StorageError, match="two guests"):
        driver.spawn(None, instance, None, [], "", {})
    assert vms.directory.names(instance.uuid) == before
