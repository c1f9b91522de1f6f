# SPDX-License-Identifier: Apache-2.0

"""What a soak looks for in Ceph is found there."""

import uuid

import pytest

from nova_rbd_backend import names
from nova_rbd_backend.ceph import lease
from nova_rbd_backend.storage import journal
from tests.soak import remains, writers
from tests.support.clients import Client
from tests.testbed.ceph import pools


@pytest.fixture
def admin(ceph):
    with ceph.admin() as connection:
        yield connection


def remaining(admin):
    with admin.open_ioctx("vms") as ioctx:
        return list(remains.of_pool(ioctx))


def block(admin, operation, address):
    told = {"blocklistop": operation, "addr": address}
    pools.command(admin, "osd blocklist", **told)


def test_disk_with_two_clients_until_one_is_blocklisted(
    ceph, pool, name, admin
):
    pool.create(name, 1 << 20)
    with pool.open(name, read_only=False) as disk:
        disk.write(b"data", 0)
        assert name not in dict(writers.with_several_clients(admin))
        other = Client(ceph, name)
        try:
            clients = dict(writers.with_several_clients(admin))[name]
            assert len(clients) == 2
            (blocked,) = {each for each in clients if each in other.address}
            block(admin, "add", blocked)
            assert name not in dict(writers.with_several_clients(admin))
        finally:
            other.kill()
        block(admin, "rm", blocked)
    assert name not in dict(writers.with_several_clients(admin))


def test_disk_that_is_locked_and_open(pool, name, admin):
    pool.create(name, 1 << 20)
    assert not any(name in left for left in remaining(admin))
    with pool.open(name, read_only=False) as disk:
        disk.write(b"data", 0)
        found = [left for left in remaining(admin) if name in left]
        assert [left.split()[2] for left in found] == ["locked", "open"]


def test_journal_entry(pool, name, admin):
    entry = journal.begin_creation(pool, name)
    assert any(entry.key in left for left in remaining(admin))
    journal.end(pool, entry)
    assert not any(entry.key in left for left in remaining(admin))


def test_lease_as_long_as_it_is_held(pool, admin):
    base = names.base_image(str(uuid.uuid4()), "content")
    held = lease.take(pool, base)
    assert f"lease {base}" in remaining(admin)
    held.end()
    assert f"lease {base}" not in remaining(admin)
