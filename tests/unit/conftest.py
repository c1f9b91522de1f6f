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

"""nova.conf as an operator writes it, for the tests of the options."""

import pytest
from oslo_config import cfg

from nova_rbd_backend import conf as options

SECRET_UUID = "457eb676-33da-42ec-9a8c-9293d545c337"
RBD = """
[DEFAULT]
libvirt_images_type = rbd
libvirt_images_store = vms
"""


@pytest.fixture
def parse(tmp_path):
    """Return a function: text of nova.conf -> parsed configuration."""

    def parse(*texts):
        conf = cfg.ConfigOpts()
        options.register_nova_options(conf)
        paths = []
        for number, text in enumerate(texts):
            path = tmp_path / f"{number}.conf"
            path.write_text(text)
            paths.append(str(path))
        conf([], project="nova", default_config_files=paths)
        return conf

    return parse
