# SPDX-License-Identifier: Apache-2.0

"""The checks of a storage class, as of the default class, on a real Ceph."""

import dataclasses

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks import ceph as ceph_
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import registry
from nova_rbd_backend.storage_classes import StorageClass
from tests.support.checking import probes, refusal, require
from tests.support.clients import connect, make_user


@pytest.fixture
def with_class(good):
    """Return a function that adds a class "fast" to the settings."""

    def with_class(pool, **options):
        wanted = ImageOptions(group="nova_rbd_class_fast", **options)
        return dataclasses.replace(
            good, storage_classes=(StorageClass("fast", pool, wanted),)
        )

    return with_class


def names(settings):
    return [step.name for step in ceph_.steps(settings)]


def test_good_class(ceph, with_class):
    """A class in the snapshots' pool, whose rights are tried only once."""
    settings = with_class("snapshots", object_size_bytes=1 << 20)

    require(settings)

    assert "rights for disks in snapshots (class fast)" in names(settings)
    assert "rights for snapshots in snapshots" not in names(settings)
    assert probes(ceph, "snapshots") == probes(ceph, "vms") == []


def test_class_on_the_same_pool(ceph, with_class):
    settings = with_class("vms")

    require(settings)

    assert names(settings).count("pool vms") == 1
    assert "rights for disks in vms (class fast)" in names(settings)


REFUSED = {
    "no pool": (
        ("nowhere", {}),
        "has no pool 'nowhere' ([nova_rbd_class_fast] pool)",
    ),
    "no rights": (
        ("volumes", {}),
        "may not make and delete disks in pool 'volumes'",
    ),
    "erasure-coded": (
        ("vms-data", {}),
        "set [nova_rbd_class_fast] pool to a replicated pool",
    ),
    "no data pool": (
        ("vms", {"data_pool": "nowhere"}),
        "has no pool 'nowhere' ([nova_rbd_class_fast] data_pool)",
    ),
    "no such option": (
        ("vms", {"conf": (("rbd_qos_iops_limits", "1"),)}),
        "[nova_rbd_class_fast] image_conf has rbd_qos_iops_limits:1",
    ),
    "stripes": (
        ("vms", {"stripe_unit_bytes": 96 << 10, "stripe_count": 4}),
        "[nova_rbd_class_fast] stripe_unit 98304",
    ),
}


@pytest.mark.parametrize(
    ("wanted", "expected"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(ceph, with_class, wanted, expected):
    pool, options = wanted

    assert expected in refusal(with_class(pool, **options))

    assert probes(ceph, "vms") == []


def test_unreadable_pool_of_a_former_class(ceph, good):
    home = Pool(connect(ceph), "vms")
    for name in ("volumes", "nowhere"):
        registry.add(home, name, "old")
    try:
        line = refusal(good)
    finally:
        for name in ("volumes", "nowhere"):
            registry.remove(home, name)

    assert "disks were made in pool 'volumes'" in line
    # A pool that no longer exists is skipped.
    require(good)


def test_glance_reads_snapshots_of_each_class(ceph, with_class):
    from nova_rbd_backend.checks import glance

    user = make_user(
        ceph,
        "glance-of-vms",
        mon="profile rbd",
        osd="profile rbd pool=snapshots, profile rbd-read-only pool=vms, "
        "profile rbd-read-only pool=vms-data",
    )
    glance.check(with_class("snapshots"), user)
    nova = make_user(
        ceph,
        "nova-of-images",
        mon="profile rbd",
        osd="profile rbd pool=vms, profile rbd pool=snapshots, "
        "profile rbd pool=images, profile rbd pool=vms-data",
    )
    settings = dataclasses.replace(with_class("images"), user=nova)
    with pytest.raises(errors.ConfigError, match="of a disk in 'images'"):
        glance.check(settings, user)


def test_glance_reads_data_pools(ceph, good, with_class):
    from nova_rbd_backend.checks import glance

    user = make_user(
        ceph,
        "glance-without-data",
        mon="profile rbd",
        osd="profile rbd pool=snapshots, profile rbd-read-only pool=vms",
    )
    where = "of a disk in 'vms' with data in 'vms-data'"
    with pytest.raises(errors.ConfigError, match=where):
        glance.check(good, user)

    # A class in the default's pool, but with its data in another pool.
    settings = with_class("vms", data_pool="vms-data")
    settings = dataclasses.replace(settings, image_options=ImageOptions())
    with pytest.raises(errors.ConfigError, match=where):
        glance.check(settings, user)
    for pool in ("vms", "snapshots"):
        assert probes(ceph, pool) == []
