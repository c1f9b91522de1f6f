# SPDX-License-Identifier: Apache-2.0

"""New images have the configured options, however they are made."""

import uuid

import pytest

from nova_rbd_backend import names, notices
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import ImageOptions, Striping
from nova_rbd_backend.storage.bases import make as bases
from nova_rbd_backend.storage.disks import provision
from nova_rbd_backend.storage.snapshots import make as snapshots
from tests.support.blank_disks import blank_disk

KIB, MIB = 1 << 10, 1 << 20
FEATURES = (
    "layering",
    "exclusive-lock",
    "object-map",
    "fast-diff",
    "deep-flatten",
)
WANTED = ImageOptions(
    data_pool="vms-data",
    object_size_bytes=8 * MIB,
    stripe_unit_bytes=8 * MIB,
    stripe_count=4,
    features=FEATURES,
    conf=(("rbd_cache", "false"), ("rbd_qos_iops_limit", "5000")),
)
CONF = {"conf_rbd_cache": "false", "conf_rbd_qos_iops_limit": "5000"}
META = {"nova.instance": "x"}


@pytest.fixture
def optioned(pool):
    """The pool of the disks, with options."""
    return Pool(pool.cluster, "vms", options=WANTED)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(17 * MIB)
        file.write(b"of the image" * MIB)
    return str(path)


def _striping(layout):
    return Striping(
        layout.object_bytes, layout.stripe_unit_bytes, layout.stripe_count
    )


def _conf(disk):
    found = disk.metadata()
    return {key: found[key] for key in found if key.startswith("conf_")}


def _assert_as_wanted(pool, name, conf):
    with pool.open(name) as disk:
        layout = disk.layout()
        assert _striping(layout) == WANTED.striping
        assert layout.data_pool == "vms-data"
        assert set(layout.features) >= set(FEATURES)
        assert _conf(disk) == conf
    assert (
        pool.headers.striping(pool.directory.image_id(name)) == WANTED.striping
    )


def test_options_of_a_blank_disk(optioned, name):
    blank_disk(optioned, name, 40 * MIB, META)

    _assert_as_wanted(optioned, name, CONF)


def test_options_of_an_imported_disk(optioned, name, raw):
    provision.import_disk(optioned, name, raw, 48 * MIB, META)

    _assert_as_wanted(optioned, name, CONF)
    with optioned.open(name) as disk:
        assert disk.read(17 * MIB, 12 * MIB) == b"of the image" * MIB
        assert disk.metadata().items() >= META.items()


def test_options_of_a_cloned_disk(optioned, parent, name):
    provision.clone_disk(optioned, name, parent, 16 * MIB, META)

    _assert_as_wanted(optioned, name, CONF)
    with optioned.open(name) as disk:
        assert disk.read(4096, 4) == b"base"
        assert disk.metadata().items() >= META.items()


def test_options_of_a_base_and_its_clone(optioned, name, raw):
    base = names.base_image(str(uuid.uuid4()), "a hash")
    bases.finish(optioned, bases.begin(optioned, base), raw, META)

    _assert_as_wanted(optioned, base, {})

    provision.clone_disk(
        optioned, name, bases.snap(optioned, base), 48 * MIB, META
    )
    _assert_as_wanted(optioned, name, CONF)


def _snapshot(pool, disk_pool, disk):
    making = snapshots.begin(pool, disk_pool, disk, str(uuid.uuid4()))
    snapshots.snap(making)
    return snapshots.publish(pool, making, {})


@pytest.mark.parametrize("where", ["vms", "snapshots"])
def test_snapshot_has_the_layout_of_its_disk_without_conf(
    optioned, name, where
):
    blank_disk(optioned, name, 40 * MIB, META)
    options = WANTED if where == "vms" else ImageOptions()
    pool = Pool(optioned.cluster, where, options=options)

    image = _snapshot(pool, optioned, name).image

    with pool.open(image) as disk:
        assert _striping(disk.layout()) == WANTED.striping
        assert set(disk.layout().features) >= set(FEATURES)
        assert disk.layout().data_pool == options.data_pool
        assert _conf(disk) == {}
    with optioned.open(name) as disk:
        assert _conf(disk) == CONF


@pytest.mark.parametrize("conf", [(), (("rbd_cache", "true"),)])
def test_clone_has_no_conf_of_its_parent(
    pool, glance_pool, parent, name, conf
):
    """Neither Glance's options nor an operator's limits are inherited."""
    glance_pool.set_metadata(
        glance_pool.directory.image_id(parent.image),
        {"theirs": "x"},
        {"conf_rbd_cache": "false", "conf_rbd_qos_iops_limit": "100"},
    )
    options = ImageOptions(conf=conf)
    pool = Pool(pool.cluster, "vms", options=options)

    provision.clone_disk(pool, name, parent, None, META)

    with pool.open(name) as disk:
        assert _conf(disk) == {f"conf_{key}": value for key, value in conf}
        assert disk.metadata()["theirs"] == "x"
    with glance_pool.open(parent.image) as image:
        assert len(_conf(image)) == 2


def test_clone_without_options_is_striped_as_its_parent(pool, optioned, name):
    parent = f"{uuid.uuid4()}"
    optioned.create(parent, 8 * MIB)
    with optioned.open(parent, read_only=False) as disk:
        disk.create_snap("snap")
    pool.clone(optioned, parent, "snap", name)

    with pool.open(name) as disk:
        assert _striping(disk.layout()) == WANTED.striping


def test_clone_of_a_coarser_parent_is_noted(pool, parent, name):
    wanted = ImageOptions(
        object_size_bytes=MIB, stripe_unit_bytes=64 * KIB, stripe_count=3
    )
    pool = Pool(pool.cluster, "vms", options=wanted)
    given = Striping(4 * MIB, 4 * MIB, 3)

    with notices.collected() as found:
        provision.clone_disk(pool, name, parent, 16 * MIB)

    with pool.open(name) as disk:
        assert _striping(disk.layout()) == given
        assert disk.read(4096, 4) == b"base"
    assert found == [
        notices.Coarser(
            pool="vms",
            group="nova_rbd",
            parent_pool="images",
            wanted=wanted.striping,
            parent=Striping(4 * MIB, 4 * MIB, 1),
            given=given,
        )
    ]
