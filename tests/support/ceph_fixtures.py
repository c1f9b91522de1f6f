# SPDX-License-Identifier: Apache-2.0

"""Fixtures that conftests of more than one suite take over.

A conftest has ``ceph = ceph_fixtures.ceph`` for each fixture that its tests
use.
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

# Kept between runs; .gitignore has it.
KEPT = paths.CHECKOUT / ".testbed"
# The hosts' addresses: another run's or a testbed's (127.0.0) are not ours.
NETWORK = f"127.{os.getpid() // 250 % 200 + 16}.{os.getpid() % 250}"


@pytest.fixture(scope="session")
def ceph() -> Iterator[CephCluster]:
    """A cluster whose dead clients' locks lapse after 10 s."""
    with started_ceph(watch_timeout_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def vms(ceph: CephCluster) -> Pool:
    """The pool of the disks, as Nova's user."""
    return Pool(connect(ceph), "vms")


@pytest.fixture(scope="session")
def guest_image() -> building.GuestImage:
    """The guest's disk in files."""
    return building.build(KEPT / "guest", KEPT / "cache")


@contextlib.contextmanager
def started_host() -> Iterator[ComputeHost]:
    """A compute host; only one at a time, for its addresses."""
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as folder:
        host = ComputeHost(pathlib.Path(folder), 1, network=NETWORK)
        try:
            host.start()
            yield host
        finally:
            host.destroy()
