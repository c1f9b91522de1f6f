# SPDX-License-Identifier: Apache-2.0

"""The seams, on the Nova that is installed beside the tests."""

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.virt import compat


def test_this_nova_has_the_seams():
    assert compat.changed_seams() == []


def test_this_nova_passes():
    compat.check_nova()


def test_older_nova_is_refused(monkeypatch):
    monkeypatch.setattr(compat, "nova_version", lambda: "25.3.0")

    with pytest.raises(errors.UnsupportedNova, match=r"Nova 25\.3\.0 is too"):
        compat.check_nova()


def test_newer_nova_with_the_same_seams_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(compat, "nova_version", lambda: "35.0.0.dev7")

    compat.check_nova()

    assert "Nova 35.0.0.dev7 is newer than 34" in caplog.text


def test_changed_seam_is_refused(monkeypatch):
    from nova.virt.libvirt import imagebackend

    def create_image(self, prepare_template, base, size, format):
        pass

    monkeypatch.setattr(imagebackend.Image, "create_image", create_image)

    with pytest.raises(errors.UnsupportedNova) as caught:
        compat.check_nova()

    line = str(caught.value)
    assert "\n" not in line
    assert (
        "Image.create_image takes (self prepare_template base size format)"
        in line
    )


def test_missing_seam_is_refused(monkeypatch):
    from nova.virt.libvirt import driver

    monkeypatch.delattr(driver.LibvirtDriver, "_cleanup_rbd")

    with pytest.raises(errors.UnsupportedNova, match=r"no .*_cleanup_rbd"):
        compat.check_nova()


def test_version_without_a_number(monkeypatch):
    monkeypatch.setattr(compat, "nova_version", lambda: "unknown")

    with pytest.raises(errors.UnsupportedNova, match="'unknown'"):
        compat.check_nova()
