# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Real parts for the functional tests: Ceph, a compute host, a guest."""

import os
import pathlib
import signal
import tempfile

import pytest

from tests.testbed import guest
from tests.testbed.ceph import CephCluster
from tests.testbed.host import ComputeHost

# Kept between runs; .gitignore has it.
KEPT = pathlib.Path(__file__).parents[2] / ".testbed"
# The hosts' addresses: another run's or a testbed's (127.0.0) are not ours.
NETWORK = f"127.{os.getpid() // 250 % 200 + 16}.{os.getpid() % 250}"


def pytest_configure(config):
    """Let SIGTERM end the fixtures' processes too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def ceph():
    """A cluster whose dead clients' locks lapse after 10 s."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ceph-", dir="/tmp"))
    cluster = CephCluster(folder, watch_timeout_seconds=10)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture(scope="session")
def guest_image():
    return guest.build(KEPT / "guest", KEPT / "cache")


@pytest.fixture(scope="session")
def compute_host():
    with tempfile.TemporaryDirectory(prefix="hosts-", dir="/tmp") as folder:
        host = ComputeHost(pathlib.Path(folder), 1, network=NETWORK)
        try:
            host.start()
            yield host
        finally:
            host.destroy()
