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

"""Nova's own configuration object, set as a nova.conf would and put back."""

import pytest

from tests.functional.conftest import ceph, vms  # noqa: F401 - fixtures


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

    from nova_rbd_backend.virt import background, purger

    own = background.Background(purger.PURGER._do)
    monkeypatch.setattr(purger, "PURGER", own)

    def flags(group=None, **options):
        kept.config(group=group, **options)

    flags(instances_path=str(tmp_path / "instances"), state_path=str(tmp_path))
    flags(group="libvirt", virt_type="qemu", images_type="rbd")
    yield flags
    own.stop()
    kept.cleanUp()
