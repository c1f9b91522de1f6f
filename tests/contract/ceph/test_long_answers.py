# SPDX-License-Identifier: Apache-2.0

"""Answers of Ceph that are longer than one page or buffer.

What librbd would take minutes to make is written as librbd stores it.
"""

import concurrent.futures
import contextlib
import json
import uuid

import pytest

from nova_rbd_backend.ceph import layouts
from nova_rbd_backend.storage.survey import children
from tests.support.many import (
    remove_clones,
    remove_entries,
    write_clones,
    write_entries,
    write_trashed,
)

MIB = 1 << 20
FEW, MANY = 300, 5000


@pytest.fixture
def base(pool):
    """Name and id of an image with a snap.

    It is not named like a base, which tests of ageing would try to remove.
    """
    name = f"image-{uuid.uuid4()}"
    pool.create(name, MIB)
    with pool.open(name, read_only=False) as image:
        image.create_snap("base")
    return name, pool.directory.image_id(name)


def ids(count, what):
    return [f"{what}{number:08x}" for number in range(count)]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_clones(pool, base, requests, count):
    _, image_id = base
    clones = ids(count, "c10e")
    write_clones(pool, image_id, clones)
    assert [found for _, found in pool.clones(image_id)] == clones
    assert requests(lambda: pool.headers.has_clones(image_id)) == (1, True)
    count, _ = requests(lambda: pool.headers.clone_ids(image_id))
    assert count == 1
    remove_clones(pool, image_id)
    assert not pool.headers.has_clones(image_id)


def test_real_clones(pool, base):
    name, image_id = base
    clones = {f"{name}-{number}" for number in range(FEW)}

    def clone(child):
        pool.clone(pool, name, "base", child)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(clone, clones))
    assert pool.headers.has_clones(image_id)
    (found,) = children.named(pool.cluster, name)
    assert {each.name for each in children.clones(found)} == clones


def test_entries_of_an_object(pool, requests):
    key = str(uuid.uuid4())
    entries = {name: name.encode() for name in ids(10000, "entry-")}
    write_entries(pool, key, entries)
    assert pool.objects.omap_get(key, "entry-") == entries
    count, _ = requests(lambda: pool.objects.omap_get(key, "entry-"))
    assert count == 21


@pytest.mark.parametrize("limit", [64, 200])
def test_osd_that_gives_shorter_pages(ceph, pool, limit):
    key = str(uuid.uuid4())
    entries = dict.fromkeys(ids(10 * limit, "entry-"), b"x")
    write_entries(pool, key, entries)
    with ceph.admin() as admin, fewer_at_a_time(ceph, admin, limit):
        assert pool.objects.omap_get(key, "entry-") == entries


@contextlib.contextmanager
def fewer_at_a_time(ceph, admin, limit):
    option = "osd_max_omap_entries_per_request"

    def tell(**arguments):
        request = json.dumps({**arguments, "format": "json"})
        for number in range(ceph.settings.osds):
            code, answer, why = admin.osd_command(number, request, b"")
            assert code == 0, why
        return answer

    before = json.loads(tell(prefix="config get", var=option))[option]
    tell(prefix="config set", var=option, val=[str(limit)])
    try:
        yield
    finally:
        tell(prefix="config set", var=option, val=[before])


def test_trash(pool, base):
    name, image_id = base
    pool.trash.move(name)
    trashed = ids(10000, "deadbeef")
    write_trashed(pool, image_id, trashed)
    try:
        found = {each.image_id for each in pool.trash.entries()}
        assert found >= {image_id, *trashed}
    finally:
        remove_entries(pool, "rbd_trash", [f"id_{each}" for each in trashed])


def test_locks(pool, base):
    """They take 400 kB."""
    _, image_id = base
    cookies = {f"{number}{'x' * 20000}" for number in range(20)}
    ioctx = pool.cluster.connection().ioctx(pool.name, pool.namespace)
    for cookie in cookies:
        ioctx.lock_shared(layouts.header(image_id), "rbd_lock", cookie, "tag")
    locks = pool.holders.locks(image_id)
    assert {lock.cookie for lock in locks} == cookies
    with pool.open(image_id=image_id) as image:
        assert len(image.clients()) == 1


def test_watches(pool, base):
    """python-rbd has room for ten at first."""
    name, _ = base
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            image = stack.enter_context(pool.open(name, read_only=False))
        (client,) = image.clients()
    assert client.client_id == pool.cluster.client_id()


def test_leases(pool):
    key = str(uuid.uuid4())
    leases = ids(300, "lease-")
    for name in leases:
        assert pool.objects.lease(key, name, "cookie", 60, "holder")
    assert sorted(pool.objects.leases(key)) == leases


def test_metadata(pool, base):
    name, image_id = base
    values = dict.fromkeys(ids(2500, "key-"), "x" * 200)
    values["long"] = "y" * 20000
    pool.headers.set_metadata(image_id, values)
    assert pool.headers.metadata(image_id) == values
    with pool.open(name) as image:
        assert image.metadata() == values
