# SPDX-License-Identifier: Apache-2.0

"""A base that several boots want at once, or that another host makes."""

import concurrent.futures
import tempfile
import threading
import time
import types

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage.bases import make as bases_
from nova_rbd_backend.storage.images import draft as draft_
from tests.nova.images import (
    MIB,
    another,
    bases,
    cache,
    content,
    fetcher,
    generated,
    never,
    rbd,
)


def base_name(image_id):
    from nova_rbd_backend.virt.boot import create_image, glance_image

    image_meta = create_image.IMAGE_API.get(None, image_id)
    return glance_image.base_of_image(image_meta, None).name


def make_elsewhere(pools, image_id):
    making = bases_.begin(pools.vms, base_name(image_id))
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"theirs")
        file.flush()
        bases_.finish(pools.vms, making, file.name, {})


def test_boots_at_the_same_time_fetch_once(pools, glance, image_id):
    glance(disk_format="qcow2")
    fetched = []
    images = [rbd(another()) for _ in range(8)]
    fetch = fetcher(b"fetched", fetched)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        made = [
            threads.submit(cache, image, fetch, image_id=image_id)
            for image in images
        ]
        for future in made:
            future.result()
    assert len(fetched) == 1
    assert {content(pools, image, 7)[0] for image in images} == {b"fetched"}


def test_waits_for_the_base_of_another_host(pools, glance, instance, image_id):
    glance(disk_format="qcow2")
    first = rbd(another())
    cache(first, fetcher(b"theirs", []), image_id=image_id)
    (base,) = bases(pools, image_id)
    with pools.vms.open(first.disk.image, read_only=False) as disk:
        disk.flatten()
    pools.vms.trash.move(base)
    other_host = lease.take(pools.vms, base)
    image = rbd(instance)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waits = thread.submit(cache, image, never, image_id=image_id)
        assert not concurrent.futures.wait([waits], timeout=2).done
        pools.vms.trash.restore(
            next(
                trashed.image_id
                for trashed in pools.vms.trash.entries()
                if trashed.name == base
            ),
            base,
        )
        other_host.end()
        waits.result(timeout=30)
    assert content(pools, image, 6)[0] == b"theirs"


def test_waiting_host_asks_less_and_less(pools, glance, image_id, monkeypatch):
    """And a thousand of them do not ask at the same moments."""
    from nova_rbd_backend.virt.boot import bases

    glance(disk_format="qcow2")
    pauses, tries = [], []
    clock = [time.monotonic()]
    begin = bases_.begin

    def tried(pool, name):
        tries.append(clock[0])
        return begin(pool, name)

    monkeypatch.setattr(bases_, "begin", tried)

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds
        if clock[0] > begun + 60:
            other_host.end()

    fake = types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr(bases, "time", fake)
    other_host, begun = lease.take(pools.vms, base_name(image_id)), clock[0]
    fetched = []
    cache(rbd(another()), fetcher(b"late", fetched), image_id=image_id)
    assert len(fetched) == 1
    assert len(pauses) < 30
    assert pauses[0] <= 0.5
    assert 3 <= max(pauses) <= 4
    assert len({round(pause, 3) for pause in pauses[-10:]}) > 5
    # Most times it only looks for the base, which is a single read.
    assert len(tries) < 10


def test_wait_for_another_host_has_a_limit(
    pools, glance, image_id, monkeypatch
):
    """The limit also holds for boots that wait for a boot that waits."""
    from nova import exception

    from nova_rbd_backend.virt.boot import bases

    glance(disk_format="qcow2")
    monkeypatch.setattr(bases, "_LONGEST_WAIT_SECONDS", 2)
    other_host = lease.take(pools.vms, base_name(image_id))
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        waiting = [
            threads.submit(cache, rbd(another()), never, image_id=image_id)
            for _ in range(4)
        ]
        for waits in waiting:
            with pytest.raises(exception.StorageError, match="still"):
                waits.result()
    assert time.monotonic() - begun < 6
    other_host.end()


def test_base_that_ages_out_before_the_clone_is_made_again(
    pools, glance, instance, image_id, monkeypatch
):
    from nova_rbd_backend.virt.boot import bases as bases_of_pool

    glance(disk_format="qcow2")
    fetched = []
    clone_from = bases_of_pool.BaseImages._clone_from

    def late(self, base, *args):
        if len(fetched) == 1:
            pools.vms.trash.move(base)
        return clone_from(self, base, *args)

    monkeypatch.setattr(bases_of_pool.BaseImages, "_clone_from", late)
    image = rbd(instance)
    cache(image, fetcher(b"fetched", fetched), image_id=image_id)
    assert len(fetched) == 2
    assert content(pools, image, 7)[0] == b"fetched"


def test_wait_for_an_import_ends_when_the_base_exists(
    pools, glance, instance, image_id
):
    """Another host makes the base while this host is at its limit."""
    from nova_rbd_backend.virt.boot import fetch as fetch_

    glance(disk_format="qcow2")
    pools.conf(group="nova_rbd", import_at_once=1)
    with (
        concurrent.futures.ThreadPoolExecutor(1) as thread,
        fetch_.slot(),
    ):
        # A generated disk never waits for an import.
        generated(rbd(instance, "disk.swap"), 8 * MIB, swap_mb=8)
        image = rbd(instance)
        waits = thread.submit(cache, image, never, image_id=image_id)
        assert not concurrent.futures.wait([waits], timeout=2).done
        make_elsewhere(pools, image_id)
        waits.result(timeout=30)
    assert content(pools, image, 6)[0] == b"theirs"


def test_first_imports_at_once_share_the_slots(pools, monkeypatch):
    from nova_rbd_backend.virt.boot import fetch as fetch_

    pools.conf(group="nova_rbd", import_at_once=3)
    begin = threading.Barrier(6)
    at_once, most = [], 0
    semaphore = threading.BoundedSemaphore

    def slow(count):
        time.sleep(0.1)
        return semaphore(count)

    def import_(_number):
        nonlocal most
        begin.wait()
        with fetch_.slot():
            at_once.append(None)
            most = max(most, len(at_once))
            time.sleep(0.2)
            at_once.pop()

    monkeypatch.setattr(threading, "BoundedSemaphore", slow)
    with concurrent.futures.ThreadPoolExecutor(6) as executor:
        list(executor.map(import_, range(6)))
    assert most == 3


def test_maker_that_is_taken_for_dead(
    pools, glance, instance, image_id, monkeypatch
):
    """The base is made again, unless another host has made it."""
    glance(disk_format="qcow2")
    fetched = []
    create = type(pools.vms).create

    def lose(self, draft, size_bytes):
        create(self, draft, size_bytes)
        if len(fetched) == 1:
            draft_.settle_attempts(pools.vms, names.final_name(draft))

    monkeypatch.setattr(type(pools.vms), "create", lose)
    image = rbd(instance)
    cache(image, fetcher(b"fetched", fetched), image_id=image_id)
    assert len(fetched) == 2
    assert content(pools, image, 7)[0] == b"fetched"
