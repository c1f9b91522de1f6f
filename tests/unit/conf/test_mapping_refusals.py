# SPDX-License-Identifier: Apache-2.0

"""Options that stop nova-compute, each with one line that says why."""

import pytest

from nova_rbd_backend import conf, errors
from tests.unit.conftest import RBD, SECRET_UUID


@pytest.fixture
def refusal(parse):
    """Return a function from texts of nova.conf to the line of refusal."""

    def refusal(*texts):
        with pytest.raises(errors.ConfigError) as caught:
            conf.apply(parse(*texts))
        line = str(caught.value)
        assert "\n" not in line
        return line

    return refusal


CONFLICTS = {
    "type": ("", "images_type = qcow2", "'qcow2'"),
    "pool": ("", "images_rbd_pool = other", "'other'"),
    "Nova's default pool, set": ("", "images_rbd_pool = rbd", "'rbd'"),
    "user": (
        f"rbd_user = nova\nrbd_secret_uuid = {SECRET_UUID}",
        "rbd_user = cinder",
        "'cinder'",
    ),
    "secret": (
        f"rbd_user = nova\nrbd_secret_uuid = {SECRET_UUID}",
        "rbd_secret_uuid = 4f0c6b5e-0000-4000-8000-000000000000",
        "'4f0c6b5e-0000-4000-8000-000000000000'",
    ),
}


@pytest.mark.parametrize(
    ("generic", "libvirt", "theirs"), CONFLICTS.values(), ids=CONFLICTS.keys()
)
def test_conflict_with_novas_group(refusal, generic, libvirt, theirs):
    line = refusal(f"{RBD}{generic}\n[libvirt]\n{libvirt}\n")

    assert theirs in line
    assert f"[libvirt] {libvirt.split()[0]}" in line
    assert "remove one of them, or make them equal" in line


def test_two_different_stores(refusal):
    line = refusal(RBD + "libvirt_images_volume_group = old\n")

    assert "'vms'" in line
    assert "'old'" in line
    assert "remove libvirt_images_volume_group" in line


def test_two_different_stores_in_two_files(refusal):
    line = refusal(RBD, "[DEFAULT]\nlibvirt_images_volume_group = old\n")

    assert "remove libvirt_images_volume_group" in line


def test_old_lvm_store_conflicts_with_novas(refusal):
    line = refusal(
        "[DEFAULT]\nlibvirt_images_type = lvm\n"
        "libvirt_images_volume_group = vg0\n"
        "[libvirt]\nimages_volume_group = vg1\n"
    )

    assert "'vg0'" in line
    assert "'vg1'" in line


@pytest.mark.parametrize(
    "text",
    [
        "[DEFAULT]\nlibvirt_images_type = rbd\n",
        "[DEFAULT]\nlibvirt_images_type = rbd\nlibvirt_images_store =\n",
        "[libvirt]\nimages_type = rbd\n",
        "[libvirt]\nimages_type = rbd\nimages_rbd_pool =\n",
    ],
)
def test_rbd_without_a_pool(refusal, text):
    assert "set [DEFAULT] libvirt_images_store" in refusal(text)


@pytest.mark.parametrize("images_type", ["raw", "qcow2", "default"])
def test_store_for_a_type_that_has_none(refusal, images_type):
    line = refusal(
        f"[DEFAULT]\nlibvirt_images_type = {images_type}\n"
        "libvirt_images_store = vms\n"
    )

    assert f"images of type '{images_type}' have no store" in line


def test_snapshot_store_for_a_type_that_has_none(refusal):
    line = refusal(
        "[DEFAULT]\nlibvirt_images_type = raw\n"
        "libvirt_images_snapshot_store = snapshots\n"
    )

    assert "libvirt_images_snapshot_store is 'snapshots'" in line


def test_store_without_a_type(refusal):
    assert "'default' have no store" in refusal(
        "[DEFAULT]\nlibvirt_images_store = vms\n"
    )


def test_refusal_of_an_unknown_type_names_the_known_types(refusal):
    line = refusal("[DEFAULT]\nlibvirt_images_type = ceph\n")

    assert line.startswith("[DEFAULT] libvirt_images_type: ")
    assert "'ceph'" in line
    assert "LocationInfo" not in line
    for images_type in conf.IMAGES_TYPES:
        assert images_type in line


def test_value_that_is_not_a_number(refusal):
    line = refusal(RBD + "[nova_rbd]\noperation_timeout_seconds = soon\n")

    assert "[nova_rbd] operation_timeout_seconds" in line


def test_operation_timeout_of_zero(refusal):
    line = refusal(RBD + "[nova_rbd]\noperation_timeout_seconds = 0\n")

    assert "[nova_rbd] operation_timeout_seconds" in line


def test_connect_timeout_below_one(refusal):
    line = refusal(RBD + "[libvirt]\nrbd_connect_timeout = -1\n")

    assert "set it to 1 or more" in line


def test_user_without_secret(refusal):
    assert "rbd_secret_uuid is not set" in refusal(RBD + "rbd_user = nova\n")


def test_secret_without_user(refusal):
    line = refusal(RBD + f"rbd_secret_uuid = {SECRET_UUID}\n")

    assert "rbd_user is not" in line


def test_user_with_the_client_prefix(refusal):
    line = refusal(
        RBD + f"rbd_user = client.nova\nrbd_secret_uuid = {SECRET_UUID}\n"
    )

    assert "leave out 'client.'" in line


def test_secret_that_is_not_a_uuid(refusal):
    line = refusal(RBD + "rbd_user = nova\nrbd_secret_uuid = nova-key\n")

    assert "'nova-key'" in line
    assert "virsh secret-list" in line


def test_rbd_needs_raw_images(refusal):
    assert "force_raw_images is false" in refusal(
        RBD + "force_raw_images = false\n"
    )


def test_rbd_disks_cannot_be_encrypted_by_nova(refusal):
    line = refusal(RBD + "[ephemeral_storage_encryption]\nenabled = true\n")

    assert "[ephemeral_storage_encryption] enabled is true" in line
