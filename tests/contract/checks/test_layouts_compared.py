# SPDX-License-Identifier: Apache-2.0

"""A Ceph with another layout is noticed before a disk is touched.

Each layout that the product knows is broken here in turn, which is the same to
the comparison as another layout of Ceph.
"""

import datetime

import pytest
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.ceph.comparison import run as comparison
from nova_rbd_backend.checks import ceph as ceph_
from nova_rbd_backend.checks.layouts import Layouts
from tests.support.checking import probes, settings_of

MIB = 1 << 20
LAYOUTS = sorted(
    name
    for name, value in vars(layouts).items()
    if not name.startswith("_")
    and (
        name.isupper() or getattr(value, "__module__", "") == layouts.__name__
    )
)


@pytest.fixture(scope="module", autouse=True)
def things_of_a_pool(ceph):
    """A namespace, an option and a mirrored image, as a pool may have them."""
    librbd, name = rbd.RBD(), "mirrored"
    with ceph.admin() as admin, admin.open_ioctx("vms") as ioctx:
        librbd.namespace_create(ioctx, "a-team")
        librbd.pool_metadata_set(ioctx, "conf_rbd_default_features", "61")
        librbd.mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_IMAGE)
        librbd.create(ioctx, name, MIB, old_format=False)
        with rbd.Image(ioctx, name) as image:
            image.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
        try:
            yield
        finally:
            with rbd.Image(ioctx, name) as image:
                image.mirror_image_disable(True)
            librbd.remove(ioctx, name)
            librbd.mirror_mode_set(ioctx, rbd.RBD_MIRROR_MODE_DISABLED)
            librbd.pool_metadata_remove(ioctx, "conf_rbd_default_features")
            librbd.namespace_remove(ioctx, "a-team")


@pytest.fixture
def compared(ceph, pool):
    """Return a function that compares the layouts as a start does."""

    def compared():
        found = Layouts(pool, "rights for disks")
        ceph_._try_rights(pool, settings_of(ceph), "disks", found)
        return found.step.probe()

    return compared


def shifted(value):
    if isinstance(value, dict):
        return {key: shifted(each) for key, each in value.items()}
    return b"\xff\xff" + value if isinstance(value, bytes) else value


def broken(real):
    """Return a layout with bytes or a character more at the beginning."""
    if isinstance(real, int):
        return real - 1
    if isinstance(real, str):
        return f"x{real}"

    def layout(*args):
        found = real(*map(shifted, args))
        return f"x{found}" if isinstance(found, str) else shifted(found)

    return layout


def test_this_ceph_has_all_layouts(ceph, compared):
    assert compared() is None
    assert probes(ceph, "vms") == []


@pytest.mark.parametrize(
    "name", [each for each in LAYOUTS if each not in comparison.NOT_COMPARED]
)
def test_each_other_layout_is_noticed(ceph, compared, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(layouts, name, broken(getattr(layouts, name)))
        with pytest.raises(errors.ConfigError) as caught:
            compared()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("Ceph 1") or line.startswith("Ceph 2")
    assert "(librbd 1." in line


def test_what_another_layout_left_is_removed(ceph, compared, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(layouts, "lockers", broken(layouts.lockers))
        patch.setattr(comparison, "remove_clone", lambda *_: None)
        with pytest.raises(errors.ConfigError):
            compared()
    assert probes(ceph, "vms") != []
    monkeypatch.setattr(ceph_, "_LONGEST_CHECK", datetime.timedelta(0))
    assert compared() is None
    assert probes(ceph, "vms") == []


def test_each_exception_is_a_layout():
    assert set(comparison.NOT_COMPARED) <= set(LAYOUTS)
