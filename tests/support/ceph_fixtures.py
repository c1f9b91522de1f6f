# SPDX-License-Identifier: Apache-2.0

"""Fixtures for the conftests of more than one suite.

A conftest takes over each fixture that its tests use by assigning it, as in
``ceph = ceph_fixtures.ceph``.
"""

import contextlib
import pathlib
import random
import tempfile
from collections.abc import Iterator

import pytest

from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect
from tests.support.clusters import shared_ceph
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.guest import building
from tests.testbed.host.compute_host import ComputeHost


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """A cluster where the watches of dead clients end after 10 s."""
    with shared_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def vms(ceph: CephCluster) -> Pool:
    """The pool of the disks, opened as Nova's user."""
    return Pool(connect(ceph), "vms")


@pytest.fixture(scope="session")
def guest_image() -> building.GuestImage:
    """The disk that the guests boot from, as files."""
    return building.build()


@contextlib.contextmanager
def started_host() -> Iterator[ComputeHost]:
    """Start a compute host, with addresses that no other host has."""
    # A testbed's hosts are in 127.0.0. The others take one of 50 000 networks.
    network = f"127.{random.randrange(16, 216)}.{random.randrange(250)}"
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as folder:
        host = ComputeHost(pathlib.Path(folder), 1, network=network)
        try:
            host.start()
            yield host
        finally:
            host.destroy()
