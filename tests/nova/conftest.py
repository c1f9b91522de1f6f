# SPDX-License-Identifier: Apache-2.0

"""Nova's own CONF, set as by a nova.conf and restored after each test."""

import importlib.metadata
import types
import uuid

import pytest

from nova_rbd_backend import threads
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.settings import ClusterSettings
from tests.nova.drivers import new_driver
from tests.nova.images import MIB, Glance
from tests.support import ceph_fixtures
from tests.testbed import nova_threads

RELEASE = int(importlib.metadata.version("nova").split(".")[0])
# These tests run in native threads, with which Nova 26 to 32 can neither copy
# a provider tree nor call libvirt from several threads (eventlet's tpool).
needs_native_nova = pytest.mark.skipif(
    RELEASE < nova_threads.NATIVE_SINCE,
    reason=f"this code of Nova {RELEASE} runs on eventlet only",
)
ceph = ceph_fixtures.ceph
vms = ceph_fixtures.vms


@pytest.fixture(autouse=True)
def native_threads():
    """No test may have eventlet replace this process's threads.

    The threads of all later tests of this process would wait for ever.
    """
    yield
    assert threads._patched_eventlet() is None


@pytest.fixture
def nova_conf(tmp_path, monkeypatch):
    """Nova's CONF with our options; call it to set ``group, **options``."""
    import nova.conf
    from oslo_config import fixture

    from nova_rbd_backend import conf

    nova.conf.CONF([], project="nova", default_config_files=[])
    kept = fixture.Config(nova.conf.CONF)
    kept.setUp()
    conf.register(nova.conf.CONF)

    from nova_rbd_backend.virt.background import (
        lasting,
        purger,
        turns,
        worker,
    )

    own = worker.Background(purger.PURGER._do)
    monkeypatch.setattr(purger, "PURGER", own)
    monkeypatch.setattr(purger, "_STATES", lasting.States())
    # Each test has the turn.
    monkeypatch.setattr(turns, "seconds", lambda: 0)

    def flags(group=None, **options):
        kept.config(group=group, **options)

    flags(instances_path=str(tmp_path / "instances"), state_path=str(tmp_path))
    flags(group="libvirt", virt_type="qemu", images_type="rbd")
    yield flags
    own.stop()
    kept.cleanUp()


@pytest.fixture
def pools(ceph, nova_conf):
    """Pool vms as Nova's user sees it, with Nova's CONF set to use it."""
    nova_conf(
        group="libvirt",
        images_rbd_pool="vms",
        images_rbd_ceph_conf=str(ceph.conf),
        rbd_user="nova",
        rbd_secret_uuid=str(uuid.uuid4()),
    )
    settings = ClusterSettings(str(ceph.conf), "nova", 5, 60)
    return types.SimpleNamespace(
        vms=Pool(cluster.connect(settings), "vms"), conf=nova_conf
    )


@pytest.fixture
def parent(ceph):
    """The location of a raw image of 8 MiB in Glance's pool."""
    settings = ClusterSettings(str(ceph.conf), "glance", 5, 60)
    here = cluster.connect(settings)
    images, name = Pool(here, "images"), str(uuid.uuid4())
    images.create(name, 8 * MIB)
    with images.open(name, read_only=False) as disk:
        disk.write(b"from glance", 0)
        disk.create_snap("snap")
        disk.protect_snap("snap")
    return f"rbd://{here.fsid()}/images/{name}/snap"


@pytest.fixture
def glance(monkeypatch):
    """Return a function that sets what Glance answers."""

    def answers(**facts):
        from nova_rbd_backend.virt.boot import create_image

        monkeypatch.setattr(create_image, "IMAGE_API", Glance(**facts))

    return answers


@pytest.fixture
def instance():
    return types.SimpleNamespace(uuid=str(uuid.uuid4()), project_id="p" * 32)


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


@pytest.fixture
def driver(pools, monkeypatch):
    """Our driver on libvirt's test hypervisor, with pool vms."""
    pools.conf(group="libvirt", connection_uri="test:///default")
    made = new_driver()
    # After release 9.0 it tells of capabilities, but of no disks, which Nova
    # (34) takes for granted.
    monkeypatch.setattr(made._host, "get_domain_capabilities", dict)
    return made


def configure(nova_conf, **classes):
    """Set storage classes as a nova.conf would: a pool for each."""
    import nova.conf

    from nova_rbd_backend.conf import class_options

    class_options.register(nova.conf.CONF, classes)
    nova_conf(group="nova_rbd", storage_classes=list(classes))
    for name, pool in classes.items():
        nova_conf(group=class_options.group(name), pool=pool)


@pytest.fixture
def new_compute():
    """Call it to become a nova-compute that has not read the pools yet."""
    from nova_rbd_backend.virt import edge

    edge._store.cache_clear()
    return edge._store.cache_clear


@pytest.fixture
def classes(pools, new_compute):
    """Class fast; call it to become a nova-compute with other classes."""
    from nova_rbd_backend.storage import registry

    def become(**classes):
        new_compute()
        configure(pools.conf, **classes)

    become(fast="snapshots")
    yield become
    for name in registry.names(pools.vms):
        registry.remove(pools.vms, name)
