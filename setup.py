# SPDX-License-Identifier: Apache-2.0

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
