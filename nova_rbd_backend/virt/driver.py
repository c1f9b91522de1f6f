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

"""LibvirtDriver: Nova's, with this backend for the disks.

Only what Nova has no other way to ask of an image backend is overridden,
with signatures that are the same from Nova 26 to 34.
"""

from collections.abc import Callable
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.storage import rbd_utils as nova_rbd_utils
from nova.virt.libvirt import driver
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import conf
from nova_rbd_backend.storage import health, offload
from nova_rbd_backend.virt import (
    compat,
    imagebackend,
    purger,
    rbd_utils,
    secret,
    startup,
)

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class LibvirtDriver(driver.LibvirtDriver):
    """compute_driver = rbd_backend.LibvirtDriver, with images_type rbd."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        startup.require(compat.check_nova)
        super().__init__(virtapi, read_only)
        self.image_backend = imagebackend.Backend(CONF.use_cow_images)
        # For Nova's own modules that use it beside the image backend.
        nova_rbd_utils.RBDDriver = rbd_utils.RBDDriver

    def init_host(self, host: str) -> None:
        """Start only when the disks can be what nova.conf asks for."""
        super().init_host(host)
        settings = conf.settings(CONF)
        startup.require(lambda: offload.run(health.check, settings))
        startup.require(
            lambda: secret.check(self._host.get_connection(), settings)
        )
        purger.PURGER.start()

    def _delete_disks(
        self, instance: Any, only: Callable[[str], bool] | None = None
    ) -> None:
        rbd = rbd_utils.RBDDriver()
        report = rbd.delete_disks(instance.uuid, only)
        LOG.info(
            "Deleted %(disks)s from pool %(pool)s in %(seconds).3f s",
            {
                "disks": ", ".join(report.deleted) or "no disk",
                "pool": rbd.pool,
                "seconds": report.seconds,
            },
            instance=instance,
        )
        purger.PURGER.start()

    def _cleanup_rbd(self, instance: Any) -> None:
        if instance.task_state == task_states.RESIZE_REVERTING:
            # Nova rolls the root disk back; only this one is made anew.
            self._delete_disks(
                instance, lambda disk: disk.endswith("disk.local")
            )
        else:
            self._delete_disks(instance)

    def unrescue(self, context: Any, instance: Any) -> None:
        """Reboot into the primary disks and drop the rescue disks."""
        with rbd_utils.cleanup_scope(instance.uuid):
            super().unrescue(context, instance)
        purger.PURGER.start()

    @staticmethod
    def _get_local_gb_info() -> dict[str, float]:
        info = rbd_utils.RBDDriver().get_pool_info()
        return {name: value / units.Gi for name, value in info.items()}

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        """Nova's periodic run; with it, what deletes have left over."""
        super().manage_image_cache(context, all_instances)
        purger.PURGER.start()
