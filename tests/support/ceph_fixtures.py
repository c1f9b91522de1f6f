# SPDX-License-Identifier: Apache-2.0

"""Fixtures for the conftests of more than one suite.

A conftest takes over each fixture that its tests use by assigning it, as in
``ceph = ceph_fixtures.ceph``.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from nova_rbd_backend.ceph.pool import Pool
from tests.support.clients import connect
from tests.support.clusters import started_ceph
from tests.testbed import paths
from tests.testbed.ceph.cluster import CephCluster
from tests.testbed.guest import building
from tests.testbed.host.compute_host import ComputeHost

# Kept between runs, and listed in .gitignore.
KEPT = paths.CHECKOUT / ".testbed"
# The hosts' addresses differ from those of other test runs, and from those of
# a testbed (127.0.0).
NETWORK = f"127.{os.getpid() // 250 % 200 + 16}.{os.getpid() % 250}"


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """A cluster where the watches of dead clients end after 10 s."""
    with started_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def vms(ceph: CephCluster) -> Pool:
    """The pool of the disks, opened as Nova's user."""
    return Pool(connect(ceph), "vms")


@pytest.fixture(scope="session")
def guest_image() -> building.GuestImage:
    """The disk that the guests boot from, as files."""
    return building.build(KEPT / "guest", KEPT / "cache")


@contextlib.contextmanager
def started_host() -> Iterator[ComputeHost]:
    """Start a compute host.

    Only one can run at a time, as they all have the same addresses.
    """
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as folder:
        host = ComputeHost(pathlib.Path(folder), 1, network=NETWORK)
        try:
            host.start()
            yield host
        finally:
            host.destroy()
