# SPDX-License-Identifier: Apache-2.0

"""LibvirtDriver: Nova's, with this backend for the disks.

Only what Nova has no other way to ask of an image backend is overridden,
with signatures that are the same from Nova 26 to 34.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.storage import rbd_utils as nova_rbd_utils
from nova.virt.libvirt import driver
from oslo_log import log as logging

from nova_rbd_backend import threads
from nova_rbd_backend.checks import run, steps
from nova_rbd_backend.virt import (
    compat,
    edge,
    fatal,
    imagebackend,
    rbd_utils,
)
from nova_rbd_backend.virt.background import purger
from nova_rbd_backend.virt.boot import ager, fetch, precache
from nova_rbd_backend.virt.moves import (
    instance_folder,
    kept_disks,
    live_migration,
)
from nova_rbd_backend.virt.pools import choice, placement
from nova_rbd_backend.virt.snapshot import detacher, frozen, quiesce

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class LibvirtDriver(driver.LibvirtDriver):
    """compute_driver = rbd_backend.LibvirtDriver, with images_type rbd."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        fatal.require(compat.check_nova)
        super().__init__(virtapi, read_only)
        self.image_backend = imagebackend.Backend(CONF.use_cow_images)
        # For Nova's own modules that use it beside the image backend.
        nova_rbd_utils.RBDDriver = rbd_utils.RBDDriver

    def init_host(self, host: str) -> None:
        """Start only when the disks can be what nova.conf asks for."""
        super().init_host(host)
        frozen.thaw_left(self._host)
        checks = run.start_steps(edge.settings(), self._lend_libvirt)
        for doubt in fatal.require(lambda: steps.require(checks)):
            LOG.warning("%s", doubt)
        fatal.require(lambda: threads.run(edge.store().start))
        fetch.clear_staged()
        purger.PURGER.start()
        detacher.DETACHER.start()

    def _lend_libvirt(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(self._host.get_connection())

    def spawn(
        self,
        context: Any,
        instance: Any,
        image_meta: Any,
        injected_files: Any,
        admin_password: Any,
        allocations: Any,
        network_info: Any = None,
        block_device_info: Any = None,
        **kwargs: Any,
    ) -> None:
        """Make an instance's disks and start its guest.

        Disks are there in an evacuation. A guest that may not start on them
        is refused before a disk that is missing is made: Nova would take
        the others for new ones too, and delete them.
        """
        choice.require_classes(instance)
        self._fence_for_start(instance)
        if choice.is_evacuated(instance) and not self._is_booted_from_volume(
            block_device_info
        ):
            choice.require_root(instance)
        with kept_disks.scope(instance):
            super().spawn(
                context,
                instance,
                image_meta,
                injected_files,
                admin_password,
                allocations,
                network_info,
                block_device_info,
                **kwargs,
            )

    def _create_guest(
        self,
        context: Any,
        xml: str,
        instance: Any,
        power_on: bool = True,
        pause: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Start a guest, once no other can be writing to its disks.

        Nova comes here on every start but that of a guest that it has shut
        down itself just before (soft reboot).
        """
        if power_on or pause:
            self._fence_for_start(instance)
        return super()._create_guest(
            context, xml, instance, power_on, pause, **kwargs
        )

    def _fence_for_start(self, instance: Any) -> None:
        """Let no guest start beside a living one, nor wait for a dead one."""
        store = edge.store()
        edge.run(lambda: store.fence_for_start(instance.uuid))

    def _delete_disks(
        self, instance: Any, only: Callable[[str], bool]
    ) -> None:
        store = edge.store()
        # It waits for clients that hold an image's lock, never for a copy.
        reports = edge.run(
            lambda: store.delete(instance.uuid, only), waits=True
        )
        for pool, report in reports.items():
            LOG.info(
                "Deleted %(disks)s from pool %(pool)s in %(seconds).3f s",
                {
                    "disks": ", ".join(report.deleted) or "no disk",
                    "pool": pool,
                    "seconds": report.seconds,
                },
                instance=instance,
            )
        purger.PURGER.start()

    def cleanup(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        block_device_info: Any = None,
        destroy_disks: bool = True,
        migrate_data: Any = None,
        **kwargs: Any,
    ) -> None:
        """Free what a guest used here; its folder too, if it has left."""
        super().cleanup(
            context,
            instance,
            network_info,
            block_device_info,
            destroy_disks,
            migrate_data,
            **kwargs,
        )
        # After a live migration Nova knows by itself what is shared.
        if not destroy_disks and migrate_data is None:
            instance_folder.remove_left_behind(instance)

    def _cleanup_rbd(self, instance: Any) -> None:
        if instance.task_state == task_states.RESIZE_REVERTING:
            # Nova rolls the root disk back; only this one is made anew.
            self._delete_disks(
                instance, lambda disk: disk.endswith("disk.local")
            )
        else:
            self._delete_disks(instance, kept_disks.filter_for(instance))

    def snapshot(
        self,
        context: Any,
        instance: Any,
        image_id: str,
        update_task_state: Callable[..., None],
    ) -> None:
        """Make an image of the root disk while the guest runs on."""
        with quiesce.scope(self, context, instance):
            super().snapshot(context, instance, image_id, update_task_state)

    def _needs_suspend_resume_for_snapshot(
        self, live_snapshot: bool, current_power_state: int
    ) -> bool:
        # A snap is as good as a power loss: no guest is suspended for it,
        # not even with [workarounds] disable_libvirt_livesnapshot.
        return not quiesce.keeps_running() and bool(
            super()._needs_suspend_resume_for_snapshot(
                live_snapshot, current_power_state
            )
        )

    # -- live migration: which storage is told by the name of a file

    def check_can_live_migrate_destination(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take no guest whose disks are not in our pool."""
        live_migration.check_destination(context, instance)
        return super().check_can_live_migrate_destination(
            context, instance, *args, **kwargs
        )

    def _create_shared_storage_test_file(self, instance: Any) -> str:
        return live_migration.make_test_file()

    def check_can_live_migrate_source(
        self,
        context: Any,
        instance: Any,
        dest_check_data: Any,
        block_device_info: Any = None,
    ) -> Any:
        """Send no guest to where its disks are not."""
        live_migration.check_source(instance, dest_check_data.filename)
        return super().check_can_live_migrate_source(
            context, instance, dest_check_data, block_device_info
        )

    def rescue(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Boot a rescue image, and not what a failed rescue has left."""
        store = edge.store()
        disks = edge.run(lambda: store.disks(instance.uuid))
        left = {disk for disk in disks if disk.endswith(".rescue")}
        if left:
            self._delete_disks(instance, left.__contains__)
        super().rescue(context, instance, *args, **kwargs)

    def unrescue(self, context: Any, instance: Any) -> None:
        """Reboot into the primary disks and drop the rescue disks."""
        with rbd_utils.cleanup_scope(instance.uuid):
            super().unrescue(context, instance)
        purger.PURGER.start()

    @staticmethod
    def _get_local_gb_info() -> dict[str, float]:
        settings = edge.settings()
        return placement.capacity_gib(settings, settings.default_class)

    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        """Tell Placement of the space of each storage class too."""
        before = provider_tree.data(nodename).inventory
        super().update_provider_tree(
            provider_tree, nodename, allocations=allocations
        )
        placement.add_classes(provider_tree, nodename, before)

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        """Nova's periodic run; with it, what lies unused in the pools."""
        super().manage_image_cache(context, all_instances)
        ager.AGER.start()
        purger.PURGER.start()
        detacher.DETACHER.start()

    def cache_image(self, context: Any, image_id: str) -> bool:
        """Have the image ready for clones; whether that took a copy, now."""
        return precache.have(context, image_id)

    def _get_disk_size_reserved_for_image_cache(self) -> int:
        # Bases lie in the pool, not on the local disk, and are no instance's.
        return 0
