"""Nova's own configuration object, set as a nova.conf would and put back."""

import pytest

from tests.functional.conftest import ceph  # noqa: F401 - a fixture


@pytest.fixture
def nova_conf(tmp_path):
    """Nova's CONF with our options; call it to set ``group, **options``."""
    import nova.conf
    from oslo_config import fixture

    from nova_rbd_backend import conf

    nova.conf.CONF([], project="nova", default_config_files=[])
    kept = fixture.Config(nova.conf.CONF)
    kept.setUp()
    conf.register(nova.conf.CONF)

    def flags(group=None, **options):
        kept.config(group=group, **options)

    flags(instances_path=str(tmp_path / "instances"), state_path=str(tmp_path))
    flags(group="libvirt", virt_type="qemu", images_type="rbd")
    yield flags
    kept.cleanUp()
