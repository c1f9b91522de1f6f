# SPDX-License-Identifier: Apache-2.0

"""LibvirtDriver: Nova's libvirt driver, with this backend for the disks.

It overrides only methods that an image backend cannot serve otherwise. Their
signatures are the same from Nova 26 to 34.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states
from nova.storage import rbd_utils as nova_rbd_utils
from nova.virt import hardware
from nova.virt.libvirt import driver
from oslo_log import log as logging

from nova_rbd_backend import threads
from nova_rbd_backend.checks import run, steps
from nova_rbd_backend.domains import disk_xml
from nova_rbd_backend.storage.disks.delete import ByMove
from nova_rbd_backend.virt import (
    edge,
    encryption,
    fatal,
    imagebackend,
    rbd_utils,
)
from nova_rbd_backend.virt.background import leftovers, purger
from nova_rbd_backend.virt.boot import ager, precache, staging
from nova_rbd_backend.virt.moves import (
    cross_cell,
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
        super().__init__(virtapi, read_only)
        self.image_backend = imagebackend.Backend(CONF.use_cow_images)
        # Nova's own modules use this beside the image backend.
        nova_rbd_utils.RBDDriver = rbd_utils.RBDDriver
        leftovers.ask_domains_of(self._host)
        encryption.use_secrets_of(self._host)

    def init_host(self, host: str) -> None:
        """Start only if Ceph and libvirt can do what nova.conf asks for."""
        super().init_host(host)
        frozen.thaw_left(self._host)
        self._offer_encryption()
        checks = run.start_steps(
            edge.settings(),
            lambda: contextlib.nullcontext(self._host.get_connection()),
        )
        for doubt in fatal.require(lambda: steps.require(checks)):
            LOG.warning("%s", doubt)
        fatal.require(lambda: threads.run(edge.store().start))
        staging.clear_staged()
        purger.PURGER.start()
        detacher.DETACHER.start()
        leftovers.SETTLER.start()

    def _offer_encryption(self) -> None:
        """Tell Placement whether this host can have encrypted disks."""
        why = encryption.obstacle(self._host)
        if why:
            LOG.info("This host has no encrypted disks: %s", why)
        self.capabilities.update(
            supports_ephemeral_encryption=not why,
            supports_ephemeral_encryption_luks=not why,
        )

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

        In an evacuation the disks exist. If the guest must not start on them,
        the evacuation is refused before any missing disk is made: if it failed
        later, Nova would take all disks for new ones and delete them. In a
        resize to another cell, no disk may be here before (cross_cell.begin).
        """
        cross_cell.begin(instance)
        choice.require_classes(instance)
        without_root = self._is_booted_from_volume(block_device_info)
        if choice.is_evacuated(instance):
            self._fence_for_evacuation(instance)
            if not without_root:
                choice.require_root(instance)
        pool = choice.pool_of_new_root(instance)
        with (
            leftovers.recorded(instance, pool, without_root),
            kept_disks.scope(instance),
            self._nothing_left(instance),
        ):
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

    def rebuild(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse a rebuild whose disks could not be made, while they exist.

        Nova calls this before it stops the guest. As this driver has no
        rebuild of its own, Nova then deletes the disks, and calls spawn().
        After any failure Nova removes what Placement has allocated to the
        server on this host, as after a failed evacuation. Nova's API has saved
        the new image already (manager.py, rebuild_instance; Nova 26 to 34).

        :raises nova.exception.InstanceFaultRollback: no disk has changed
        :raises NotImplementedError: Nova may go on
        """
        if not kwargs.get("evacuate"):
            try:
                choice.require_makeable(instance)
            except exception.NovaException as error:
                LOG.warning(
                    "This rebuild was refused before any disk was changed: "
                    "%s. Nova now removes the server's allocation in "
                    "Placement: create it again by `nova-manage placement "
                    "heal_allocations --instance %s`. The server shows the "
                    "image that it was to be rebuilt from",
                    *(error, instance.uuid),
                    instance=instance,
                )
                raise exception.InstanceFaultRollback(error) from error
        super().rebuild(context, instance, *args, **kwargs)

    @contextlib.contextmanager
    def _nothing_left(self, instance: Any) -> Iterator[None]:
        """Delete what a failed start has made of a temporary image.

        Nova does so only if it was the guest that did not start. A later
        attempt, of a later image, must not find such a disk; it may be made
        on another host, with another pool.
        """
        try:
            yield
        except Exception:
            if choice.is_made_of_temporary_image(instance):
                try:
                    only = kept_disks.filter_for(instance)
                    self._delete_disks(instance, only)
                except Exception as error:
                    LOG.warning(
                        "Disks of a failed start stay in Ceph: %s",
                        error,
                        instance=instance,
                    )
            raise

    def _create_guest(
        self,
        context: Any,
        xml: str,
        instance: Any,
        power_on: bool = True,
        pause: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Start a guest after making sure that no other writes to its disks.

        Nova calls this for every start, except in a soft reboot, where Nova
        itself has just shut the guest down.
        """
        if power_on or pause:
            encryption.have_for_start(self._host, context, instance, xml)
            self._fence_for_start(xml, instance)
        return super()._create_guest(
            context, xml, instance, power_on, pause, **kwargs
        )

    def _fence_for_start(self, xml: str, instance: Any) -> None:
        """Refuse to start beside a living guest; fence a dead one.

        Only on the disks of the domain: a pool that stands still must not keep
        guests from starting that have no disk in it.
        """
        store = edge.store()
        disks = disk_xml.rbd_images(xml, instance.uuid)
        if not edge.run(lambda: store.ready_for_start(instance.uuid, disks)):
            edge.run(
                lambda: store.fence_for_start(instance.uuid, disks), waits=True
            )

    def _fence_for_evacuation(self, instance: Any) -> None:
        """Do the same on all disks within reach, before there is a domain."""
        store = edge.store()
        edge.run(lambda: store.fence_within_reach(instance.uuid), waits=True)

    def _delete_disks(
        self,
        instance: Any,
        only: Callable[[str], bool] = lambda _disk: True,
        by_move: ByMove | None = None,
    ) -> None:
        store = edge.store()
        # This may wait for clients that have an image's lock, not for copies.
        reports = edge.run(
            lambda: store.delete(instance.uuid, only, by_move), waits=True
        )
        for pool, report in reports.items():
            LOG.info(
                "Deleted %s from pool %s in %.3f s",
                ", ".join(report.deleted) or "no disk",
                pool,
                report.seconds,
                instance=instance,
            )
        purger.PURGER.start()
        leftovers.settle_spawn(instance)

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
        """Clean up after a guest; remove its folder if it has left.

        Nova itself removes the secrets of a guest whose disks it deletes.
        """
        super().cleanup(
            context,
            instance,
            network_info,
            block_device_info,
            destroy_disks,
            migrate_data,
            **kwargs,
        )
        if destroy_disks:
            self._delete_keys(context, instance, block_device_info)
        elif kwargs.get("destroy_secrets", True):
            # False in a hard reboot.
            encryption.forget(self._host, instance)
        # After a live migration Nova itself knows what the hosts share.
        if not destroy_disks and migrate_data is None:
            instance_folder.remove_left_behind(instance)

    def _delete_keys(
        self, context: Any, instance: Any, block_device_info: Any
    ) -> None:
        """Delete passphrases, unless a disk may be restored or made again."""
        keys = encryption.encrypted_disks(block_device_info)
        if not keys or instance.task_state != task_states.DELETING:
            return
        if edge.settings().trash_retention_seconds:
            for secret_uuid in keys:
                LOG.info(
                    "Secret %s stays in the key manager, as its disk stays in "
                    "the trash",
                    secret_uuid,
                    instance=instance,
                )
            return
        encryption.delete_keys(context, instance, block_device_info)

    def finish_migration(
        self,
        context: Any,
        migration: Any,
        instance: Any,
        disk_info: Any,
        network_info: Any,
        image_meta: Any,
        resize_instance: bool,
        allocations: Any,
        block_device_info: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Finish a resize here, where a disk may have to be made anew."""
        encryption.have(self._host, context, instance, block_device_info)
        super().finish_migration(
            context,
            migration,
            instance,
            disk_info,
            network_info,
            image_meta,
            resize_instance,
            allocations,
            block_device_info,
            *args,
            **kwargs,
        )

    def confirm_migration(
        self, context: Any, migration: Any, instance: Any, network_info: Any
    ) -> None:
        super().confirm_migration(context, migration, instance, network_info)
        if instance.host != CONF.host:
            encryption.forget(self._host, instance)

    def pre_live_migration(
        self,
        context: Any,
        instance: Any,
        block_device_info: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        encryption.have(self._host, context, instance, block_device_info)
        return super().pre_live_migration(
            context, instance, block_device_info, *args, **kwargs
        )

    def _cleanup_rbd(self, instance: Any) -> None:
        by_move = cross_cell.to_delete(instance)
        if by_move is not None:
            self._delete_disks(instance, by_move=by_move)
        elif instance.task_state == task_states.RESIZE_REVERTING:
            # Nova rolls back the root disk, and makes only this one again.
            self._delete_disks(
                instance, lambda disk: disk.endswith("disk.local")
            )
        else:
            self._delete_disks(instance, kept_disks.filter_for(instance))

    def delete_instance_files(self, instance: Any) -> bool:
        """Delete an instance's folder, and its disks if Nova forgot them.

        :returns: False if something is left
        """
        gone = bool(super().delete_instance_files(instance))
        return leftovers.delete_disks_of_deleted(instance) and gone

    def power_off(
        self, instance: Any, timeout: int = 0, retry_interval: int = 0
    ) -> None:
        """Power off a guest, unless it is to be shelved and cannot be.

        Nova makes the snapshot afterwards, which would be refused.
        """
        if instance.task_state == task_states.SHELVING:
            encryption.require_plain(self._host, instance, "be shelved")
        super().power_off(instance, timeout, retry_interval)

    def snapshot(
        self,
        context: Any,
        instance: Any,
        image_id: str,
        update_task_state: Callable[..., None],
    ) -> None:
        with quiesce.scope(self, context, instance):
            super().snapshot(context, instance, image_id, update_task_state)

    def _needs_suspend_resume_for_snapshot(
        self, live_snapshot: bool, current_power_state: int
    ) -> bool:
        # A snap has what a power loss would leave on the disk. No guest is
        # suspended to get more than that, not even with [workarounds]
        # disable_libvirt_livesnapshot.
        return not quiesce.keeps_running() and bool(
            super()._needs_suspend_resume_for_snapshot(
                live_snapshot, current_power_state
            )
        )

    def check_can_live_migrate_destination(
        self, context: Any, instance: Any, *args: Any, **kwargs: Any
    ) -> Any:
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
        live_migration.check_source(instance, dest_check_data.filename)
        return super().check_can_live_migrate_source(
            context, instance, dest_check_data, block_device_info
        )

    def rollback_live_migration_at_destination(
        self, *args: Any, **kwargs: Any
    ) -> None:
        """Clean up here; the guest goes on running on its own host.

        Nova calls cleanup() without the facts of the migration, as it does
        when an instance has left this host.
        """
        with instance_folder.left_to_nova():
            super().rollback_live_migration_at_destination(*args, **kwargs)

    def rescue(
        self,
        context: Any,
        instance: Any,
        network_info: Any,
        image_meta: Any,
        rescue_password: Any,
        block_device_info: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Boot a rescue image, after deleting what a failed rescue left.

        :raises nova.exception.InstanceNotRescuable: Nova would show the
            rescue image an encrypted disk as it is in Ceph
        """
        if encryption.encrypted_disks(
            block_device_info
        ) and not hardware.check_hw_rescue_props(image_meta):
            raise exception.InstanceNotRescuable(
                instance_id=instance.uuid,
                reason="its disks are encrypted: take a rescue image with the "
                "property hw_rescue_device or hw_rescue_bus",
            )
        store = edge.store()
        disks = edge.run(lambda: store.disks_within_reach(instance.uuid))
        left = {disk for disk in disks if disk.endswith(".rescue")}
        if left:
            self._delete_disks(instance, left.__contains__)
        super().rescue(
            context,
            instance,
            network_info,
            image_meta,
            rescue_password,
            block_device_info,
            *args,
            **kwargs,
        )

    def unrescue(self, context: Any, instance: Any) -> None:
        with rbd_utils.cleanup_scope(instance.uuid):
            super().unrescue(context, instance)
        purger.PURGER.start()

    @staticmethod
    def _get_local_gb_info() -> dict[str, float]:
        return placement.local_gib()

    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        """Report the space of each storage class to Placement too."""
        before = provider_tree.data(nodename).inventory
        super().update_provider_tree(
            provider_tree, nodename, allocations=allocations
        )
        placement.complete(provider_tree, nodename, before)

    def manage_image_cache(self, context: Any, all_instances: Any) -> None:
        """Age the local image cache, and do the periodic work on the pools."""
        super().manage_image_cache(context, all_instances)
        ager.AGER.start()
        purger.PURGER.start()
        detacher.DETACHER.start()
        leftovers.SETTLER.start()

    def cache_image(self, context: Any, image_id: str) -> bool:
        return precache.have(context, image_id)

    def _get_disk_size_reserved_for_image_cache(self) -> int:
        # Bases are in the pool, not on the local disk, and no instance's.
        return 0
