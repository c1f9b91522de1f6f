# SPDX-License-Identifier: Apache-2.0

"""Open a pool of either cluster, the fake or a real one."""

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import NO_OPTIONS
from tests.contract.fake.pool import FakePool
from tests.contract.fake.state import FakeCluster


def pool_of(cluster, name, namespace="", options=NO_OPTIONS):
    """Return a FakePool for a FakeCluster, and a Pool otherwise."""
    kind = FakePool if isinstance(cluster, FakeCluster) else Pool
    return kind(cluster, name, namespace, options)
