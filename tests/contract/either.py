# SPDX-License-Identifier: Apache-2.0

"""One way to open a pool of the fake cluster and of a real one."""

from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.image_options import NO_OPTIONS
from tests.contract.fake.pool import FakePool
from tests.contract.fake.state import FakeCluster


def pool_of(cluster, name, namespace="", options=NO_OPTIONS):
    """Return a FakePool of a FakeCluster, else a Pool."""
    kind = FakePool if isinstance(cluster, FakeCluster) else Pool
    return kind(cluster, name, namespace, options)
