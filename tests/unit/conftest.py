# SPDX-License-Identifier: Apache-2.0

"""nova.conf as an operator writes it, for the tests of the options."""

import pytest
from oslo_config import cfg

from nova_rbd_backend import conf as conf_

SECRET_UUID = "457eb676-33da-42ec-9a8c-9293d545c337"
RBD = """
[DEFAULT]
libvirt_images_type = rbd
libvirt_images_store = vms
"""


@pytest.fixture
def parse(tmp_path):
    """Return a function from texts of nova.conf to the parsed options."""

    def parse(*texts):
        conf = cfg.ConfigOpts()
        conf_.register_nova_options(conf)
        paths = []
        for number, text in enumerate(texts):
            path = tmp_path / f"{number}.conf"
            path.write_text(text)
            paths.append(str(path))
        conf([], project="nova", default_config_files=paths)
        return conf

    return parse
