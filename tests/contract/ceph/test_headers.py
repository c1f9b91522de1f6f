# SPDX-License-Identifier: Apache-2.0

"""What is known of an image by its id, without opening it."""

import datetime

import pytest
import rados

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import layouts

MIB = 1 << 20


@pytest.fixture
def image_id(pool, instance):
    """An image with a snap "s"."""
    pool.create(instance, MIB)
    with pool.open(instance, read_only=False) as image:
        image.create_snap("s")
    return pool.directory.image_id(instance)


@pytest.mark.parametrize("trashed", [False, True])
def test_parent_and_clones(pool, instance, image_id, trashed):
    headers = pool.headers
    assert pool.parent_of(image_id) is None
    assert not headers.has_clones(image_id)
    assert headers.clone_ids(image_id) == []
    pool.clone(pool, instance, "s", f"{instance}c")
    clone_id = pool.directory.image_id(f"{instance}c")
    if trashed:
        pool.trash.move(f"{instance}c")
    parent_pool, parent_id = pool.parent_of(clone_id)
    assert (str(parent_pool), parent_id) == ("vms", image_id)
    assert headers.has_clones(image_id)
    ((pool_id, namespace, found),) = headers.clone_ids(image_id)
    assert (namespace, found) == ("", clone_id)
    assert pool.cluster.pool_name(pool_id) == "vms"
    assert headers.parent_id(clone_id) == (pool_id, "", image_id)


def test_times(pool, image_id):
    made, used = pool.headers.times(image_id)
    now = datetime.datetime.now(datetime.UTC)
    assert abs(now - made) < datetime.timedelta(seconds=60)
    assert made <= used


def test_metadata(pool, image_id):
    headers = pool.headers
    assert headers.metadata(image_id) == {}
    pool.set_metadata(image_id, {"key": "välue", "conf_rbd_cache": "true"})
    pool.set_metadata(image_id, {"other": "y"})
    assert headers.metadata(image_id) == {
        "key": "välue",
        "conf_rbd_cache": "true",
        "other": "y",
    }
    pool.set_metadata(image_id, {"key": "x"}, conf={"conf_rbd_qos": "1"})
    assert headers.metadata(image_id) == {
        "key": "x",
        "conf_rbd_qos": "1",
        "other": "y",
    }


def test_empty_metadata(pool, image_id):
    pool.set_metadata(image_id, {"key": ""})
    assert pool.headers.metadata(image_id) == {"key": ""}


def test_more_snaps_than_python_rados_expects(ceph, pool, instance, image_id):
    """The ids of 2000 snaps take 16 KB."""
    with (
        ceph.admin() as admin,
        admin.open_ioctx(pool.name) as ioctx,
        rados.WriteOpCtx() as op,
    ):
        # librbd would make each snap of its own, which takes a minute.
        for number in range(1000, 3000):
            request = layouts.encoded(f"s{number}") + layouts.snap_id(number)
            op.execute("rbd", "snapshot_add", request)
        ioctx.operate_write_op(op, layouts.header(image_id))
    assert pool.snap_size_bytes(instance, "s2999") == MIB
    assert not pool.headers.has_clones(image_id)


@pytest.mark.parametrize(
    "ask",
    [
        lambda headers: headers.size_bytes("no-id"),
        lambda headers: headers.snap_size_bytes("no-id", "s"),
        lambda headers: headers.parent_id("no-id"),
        lambda headers: headers.has_clones("no-id"),
        lambda headers: headers.striping("no-id"),
        lambda headers: headers.set_metadata("no-id", {"key": "x"}),
        lambda headers: headers.has_journal("no-id"),
    ],
)
def test_no_such_image(pool, ask):
    with pytest.raises(errors.ImageNotFound):
        ask(pool.headers)
    assert pool.headers.clone_ids("no-id") == []
    assert pool.headers.metadata("no-id") == {}
