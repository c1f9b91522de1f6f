# SPDX-License-Identifier: Apache-2.0

"""Every disk whose guest starts has the feature exclusive-lock."""

import dataclasses

import pytest
import rbd

from nova_rbd_backend import names, notices
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.storage import fencing
from nova_rbd_backend.storage.disks import provision
from tests.support.blank_disks import blank_disk
from tests.support.clients import Client, connect, holders, make_user

MIB = 1 << 20
NEEDED = {"layering", "exclusive-lock", "deep-flatten"}
#: As Ceph made images before release 10, and old kernels still need them.
OLD = ImageOptions(features=("layering",))
ALL = ImageOptions(
    features=("layering", "exclusive-lock", "object-map", "journaling")
)


def features(pool, name):
    with pool.open(name) as disk:
        return {*disk.layout().features} - {"operations"}


@pytest.fixture
def parents(glance_pool, parent):
    """Snaps of two images in Glance's pool, by the options of these."""

    def made(options):
        pool = Pool(glance_pool.cluster, "images", options=options)
        name = f"{parent.image}.{len(options.features)}"
        pool.create(name, MIB)
        with pool.open(name, read_only=False) as image:
            image.create_snap("snap")
        return names.SnapPath("images", "", name, "snap")

    return {options: made(options) for options in (OLD, ALL)}


@pytest.fixture
def with_default(ceph, tmp_path):
    """Return a function that gives pool vms, with another ceph.conf."""

    def vms(default):
        path = tmp_path / "ceph.conf"
        path.write_text(
            f"{ceph.conf.read_text()}\n[client]\n"
            f"rbd_default_features = {default}\n"
        )
        settings = connect(ceph).settings
        changed = dataclasses.replace(settings, conf_file=str(path))
        return Pool(cluster.connect(changed), "vms")

    return vms


@pytest.fixture
def old_disk(pool, name):
    """A disk as Nova's own backend makes it with old defaults."""
    Pool(pool.cluster, "vms", options=OLD).create(name, MIB)
    return name


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("1", NEEDED),
        ("layering", NEEDED),
        ("3", NEEDED),
        # librbd has object-map and fast-diff go together.
        ("13", NEEDED | {"object-map", "fast-diff"}),
        ("125", NEEDED | {"object-map", "fast-diff", "journaling"}),
    ],
)
def test_ceph_conf_can_add_features_but_not_take_them_away(
    with_default, parents, instance, default, expected
):
    vms = with_default(default)
    blank_disk(vms, f"{instance}_disk", MIB)
    found = [features(vms, f"{instance}_disk")]
    for number, parent in enumerate(parents.values()):
        disk = f"{instance}_disk.eph{number}"
        provision.clone_disk(vms, disk, parent)
        found.append(features(vms, disk))
    assert found == [expected] * 3


def test_default_of_the_pool_comes_before_that_of_ceph_conf(
    with_default, pool, parents, instance
):
    vms = with_default("125")
    with pool._access.reach("set the default of") as ioctx:
        key = "conf_rbd_default_features"
        rbd.RBD().pool_metadata_set(ioctx, key, "layering,object-map")
        try:
            blank_disk(vms, f"{instance}_disk", MIB)
            disk = f"{instance}_disk.eph0"
            provision.clone_disk(vms, disk, parents[ALL])
        finally:
            rbd.RBD().pool_metadata_remove(ioctx, key)
    expected = NEEDED | {"object-map", "fast-diff"}
    assert features(vms, f"{instance}_disk") == expected
    assert features(vms, disk) == expected


def test_start_adds_it_to_a_disk_of_another_backend(pool, instance, old_disk):
    with notices.collected() as noted:
        fencing.fence_for_start(pool, instance)
    assert features(pool, old_disk) == {"layering", "exclusive-lock"}
    assert noted == [notices.Lockless("vms", old_disk, None)]
    assert holders(pool, old_disk) == ()

    with notices.collected() as noted:
        fencing.fence_for_start(pool, instance)
    assert noted == []


def test_start_does_not_depend_on_it(ceph, pool, instance, old_disk):
    user = make_user(ceph, "reader", mon="allow r", osd="allow rx pool=vms")
    reader = Pool(connect(ceph, user), "vms")
    with notices.collected() as noted:
        fencing.fence_for_start(reader, instance)
    (fact,) = noted
    assert (fact.pool, fact.image) == ("vms", old_disk)
    assert "caps" in fact.refusal
    assert features(pool, old_disk) == {"layering"}


def test_operator_may_add_it_while_the_guest_runs(ceph, pool, old_disk):
    client = Client(ceph, old_disk)
    try:
        assert client.write("old") == "wrote"
        (holder,) = holders(pool, old_disk)
        assert holder.lock_cookie is None
        with pool.open(old_disk, read_only=False) as disk:
            disk.enable_exclusive_lock()
        assert client.write("new") == "wrote"
        (holder,) = holders(pool, old_disk)
        assert holder.lock_cookie is not None
    finally:
        client.close()
