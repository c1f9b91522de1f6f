# SPDX-License-Identifier: Apache-2.0

"""What Nova asks to be encrypted is, or is not made at all."""

import types
import uuid

import pytest

from tests.nova.images import GIB, MIB, cache, fetcher, generated, never
from tests.support.embedded_secrets import embedded_secrets
from tests.support.encrypted import (
    PASSPHRASE,
    decrypted,
    needs_encrypted_clones,
)

SECRET = (
    "<secret ephemeral='no' private='no'><uuid>{0}</uuid>"
    "<usage type='volume'><volume>{0}</volume></usage></secret>"
)


@pytest.fixture(scope="module")
def secrets():
    """libvirt's secret driver in this process."""
    return embedded_secrets()


@pytest.fixture
def secret_uuid(secrets, pools):
    """The secret with the passphrase, as Nova has put it into libvirt."""
    from nova_rbd_backend.virt import encryption

    pools.conf(group="nova_rbd", encrypted_disks=True)
    host = types.SimpleNamespace(
        get_connection=lambda: secrets, has_min_version=lambda _: True
    )
    encryption.use_secrets_of(host)
    name = str(uuid.uuid4())
    secret = secrets.secretDefineXML(SECRET.format(name))
    secret.setValue(PASSPHRASE)
    # It stays, see embedded_secrets.
    return name


@pytest.fixture
def mapping(secret_uuid):
    return {
        "bus": "virtio",
        "dev": "vda",
        "type": "disk",
        "encrypted": True,
        "encryption_secret_uuid": secret_uuid,
        "encryption_format": "luks",
    }


@pytest.fixture
def image(instance, mapping):
    """Return a function that has the object that Nova has for a disk."""

    def image(name="disk"):
        from nova_rbd_backend.virt import imagebackend

        return imagebackend.Rbd(instance, name, disk_info_mapping=mapping)

    return image


def seen(ceph, image, length=11):
    with decrypted(ceph, image.disk.image) as disk:
        return disk.read(0, length), disk.size()


@needs_encrypted_clones
def test_clone_of_glances_image(ceph, pools, glance, parent, image):
    glance(urls=[parent])
    made = image()
    cache(made, never)
    assert seen(ceph, made) == (b"from glance", GIB)
    assert made.get_disk_size("") == GIB
    # A second one shares the base.
    cache(image(), never)
    bases = pools.vms.directory.names("nova-base_" + parent.split("/")[4])
    assert len(bases) == 1


@needs_encrypted_clones
def test_image_that_is_fetched(ceph, pools, glance, image):
    glance(disk_format="qcow2", os_hash_value="abc")
    made = image()
    cache(made, fetcher(b"from glance" + bytes(MIB), []))
    assert seen(ceph, made) == (b"from glance", GIB)


@needs_encrypted_clones
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("disk.swap", {"swap_mb": 8}),
        ("disk.eph0", {"ephemeral_size": 1, "specified_fs": None}),
    ],
)
def test_generated_disk(ceph, pools, image, name, facts):
    made = image(name)
    generated(made, 8 * MIB, **facts)
    assert seen(ceph, made, 6) == (b"header", 8 * MIB)


@needs_encrypted_clones
def test_grown(ceph, pools, glance, parent, image):
    glance(urls=[parent])
    made = image()
    cache(made, never)
    cache(made, never, size=2 * GIB)
    made.resize_image(2 * GIB)
    assert seen(ceph, made) == (b"from glance", 2 * GIB)


def test_xml(image, mapping, monkeypatch, pools):
    from nova_rbd_backend.virt import rbd_utils

    monkeypatch.setattr(
        rbd_utils.RBDDriver, "get_mon_addrs", lambda _: (["::1"], ["6789"])
    )
    xml = image().libvirt_info("none", {}).to_xml()
    assert (
        '<encryption format="luks2" engine="librbd">\n'
        '      <secret type="passphrase" '
        f'uuid="{mapping["encryption_secret_uuid"]}"/>' in xml
    )
    assert PASSPHRASE.decode() not in xml


def test_plain_disk_is_not_taken(pools, glance, parent, image, instance):
    from nova import exception

    from tests.nova.images import rbd

    glance(urls=[parent])
    cache(rbd(instance), never)
    with pytest.raises(exception.StorageError, match="is not encrypted"):
        cache(image(), never)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"encryption_format": "plain"}, "'plain' is not supported"),
        ({"encryption_secret_uuid": str(uuid.uuid4())}, "no passphrase"),
    ],
)
@needs_encrypted_clones
def test_refused(pools, glance, parent, image, mapping, wrong, text):
    from nova import exception

    glance(urls=[parent])
    mapping.update(wrong)
    made = image()
    with pytest.raises(exception.StorageError, match=text) as caught:
        cache(made, never)
    assert PASSPHRASE.decode() not in str(caught.value)
    assert not made.exists()


def test_not_made_of_a_copy(pools, glance, image, instance):
    """Nova would have another host send the file of an image that is gone."""
    from nova import exception

    made = image()
    with pytest.raises(exception.StorageError, match="cannot be encrypted"):
        made.cache(fetcher(b"a file", []), "0" * 40, GIB)
    assert not made.exists()
