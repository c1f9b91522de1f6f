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

"""Install nova_rbd_backend, and its virt/ folder as nova.virt.rbd_backend too.

Nova loads a compute driver as ``nova.virt.<compute_driver>`` (Nova 26 to 34,
nova/virt/driver.py:load_compute_driver), so ``rbd_backend.LibvirtDriver``
needs a module of that name in Nova's own site directory.
"""

import setuptools


class Distribution(setuptools.Distribution):
    """Add the mapping after pbr has read setup.cfg.

    pbr turns a package listed there as a folder into a name with slashes,
    which works in a wheel and breaks an editable install.
    """

    def finalize_options(self):
        super().finalize_options()
        if "nova.virt.rbd_backend" not in self.packages:
            self.packages.append("nova.virt.rbd_backend")
            self.package_dir = dict(
                self.package_dir or {},
                **{"nova.virt.rbd_backend": "nova_rbd_backend/virt"},
            )


setuptools.setup(
    setup_requires=["pbr>=2.0.0"], pbr=True, distclass=Distribution
)
