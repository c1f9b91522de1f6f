# SPDX-License-Identifier: Apache-2.0

"""Delete the disks of instances that Nova deleted without their host.

Nova's API deletes an instance in the database alone if its host is down, or if
it has none after a failed build. A nova-compute that is started again cleans
up the instances whose domains it finds, and an instance that was being built
has no domain yet (_cleanup_running_deleted_instances, Nova 26 to 34). Two ways
lead to its disks:

* Nova's periodic _run_pending_deletes has the driver delete the files of the
  host's deleted instances. Nova has lost track of instances without a host.
  If a pool is silent, Nova's loop ends at its first instance, and DELETER goes
  on with all of them in the pools that answer.
* The journal has an entry for each spawn until it ends. If its process has
  died, or the spawn has failed, Nova's database tells what became of the
  instance.

Disks are deleted only if the database has the instance as deleted, and its
last host, if any, is the one in question, and has no domain of it that Nova
keeps. They go to the trash like all deleted disks.
"""

import contextlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import nova.conf
from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_rbd_backend import errors
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.disks.delete import DeleteReport
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background import lasting
from nova_rbd_backend.virt.background.purger import PURGER
from nova_rbd_backend.virt.background.worker import Background

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

# A process that cannot be seen from here counts as dead after this time.
_LONGEST_SPAWN_SECONDS = 24 * 3600.0

# Why a pool does not take an entry now.
_NOT_WRITTEN = (*errors.UNREACHED, errors.NoSpace)

_STATES = lasting.States()
_STATES_OF_DELETER = lasting.States()

# UUIDs of the instances whose spawns on this host have not ended.
_not_ended: set[str] = set()

# Nova's Host, which has the connection to libvirt; the driver sets it.
_here = types.SimpleNamespace(host=None)


def ask_domains_of(host: Any) -> None:
    """Set Nova's Host, which tells what domains there are on this host."""
    _here.host = host


@contextlib.contextmanager
def recorded(instance: Any, pool: Pool, without_root: bool) -> Iterator[None]:
    """Record in a pool's journal that an instance is spawned, until that ends.

    After a failure the entry stays, because Nova deletes the disks later, and
    may fail to. Records no instance that is on another host yet, because that
    host cleans up after it.

    :param pool: where its disks are made, so that no other pool is needed
    :param without_root: it is booted from a volume. It may have no disk in the
        pool, and then a pool that is silent or full must not stop it
    """
    if instance.host not in (None, CONF.host):
        yield
        return
    with edge.as_nova(), journal.sole_maker(pool, instance.uuid):
        entry = _begin(instance, pool, without_root)
        if entry is None:
            yield
            return
        _not_ended.add(instance.uuid)
        yield
        try:
            edge.run(lambda: journal.end(pool, entry))
            _not_ended.discard(instance.uuid)
        except exception.NovaException as error:
            # The guest runs. The entry is ended by a later run of SETTLER.
            LOG.info(
                "The spawn has ended, but its entry in the journal stays: %s",
                error,
                instance=instance,
            )


def _begin(
    instance: Any, pool: Pool, without_root: bool
) -> journal.Entry | None:
    """Record a spawn; return None if it cannot be recorded and goes on."""
    try:
        return edge.run(
            lambda: journal.begin_spawn(pool, instance.uuid, CONF.host)
        )
    except exception.NovaException as error:
        if not (without_root and isinstance(error.__cause__, _NOT_WRITTEN)):
            raise
        LOG.warning(
            "This spawn is not recorded: %s. If the server is deleted without "
            "its host, look for its local disks by 'nova-rbd orphans'",
            error,
            instance=instance,
        )
        return None


def settle_spawn(instance: Any) -> None:
    """Settle in the background a failed spawn whose disks have been deleted.

    Does nothing for other instances. What an earlier process has begun is
    known since nova-compute has started.
    """
    if instance.uuid in _not_ended:
        SETTLER.start()


def delete_disks_of_deleted(instance: Any) -> bool:
    """Delete the disks of a deleted instance of this host.

    Does nothing for an instance that is not deleted, or of another host.

    :returns: False if disks are left
    :raises nova.exception.StorageError: Ceph does not answer. Nova counts no
        attempt, of which it makes a few only, and leaves all other instances
        to its next period; DELETER deletes their disks where it can
    """
    if not (instance.obj_attr_is_set("deleted") and instance.deleted):
        return True
    # Asked once more: Nova's list may come from a replica of its database.
    found = _in_database(instance.uuid)
    if found is None or not _is_deleted_on(found, CONF.host):
        return True
    if _is_kept(found):
        LOG.warning(
            "Disks of this deleted instance stay in Ceph: %s",
            _why_kept(),
            instance=instance,
        )
        return False
    try:
        _delete(instance.uuid)
    except exception.NovaException as error:
        if isinstance(error.__cause__, errors.UNREACHED):
            DELETER.start()
            raise
        LOG.error(
            "Disks of this deleted instance stay in Ceph: %s",
            error,
            instance=instance,
        )
        return False
    return True


def _delete_pending_once() -> bool:
    """Delete the disks of this host's deleted instances, where Ceph answers.

    Each silent pool is asked for one instance only. Nova's next period deletes
    the rest, and takes note of what has been deleted here.
    """
    silent: set[str] = set()
    try:
        with _STATES_OF_DELETER.run():
            for instance in _pending_deletes():
                gone = _is_deleted_on(instance, CONF.host)
                if gone and not _is_kept(instance):
                    _delete_within_reach(instance.uuid, silent)
            if silent:
                _STATES_OF_DELETER.keep()
    except Exception as error:
        text = "Disks of deleted instances stay in Ceph: %s"
        _STATES_OF_DELETER.tell("", str(error), LOG.error, text, error)
    return True


def _pending_deletes() -> list[Any]:
    """Return the instances that Nova's periodic _run_pending_deletes takes."""
    context = nova_context.get_admin_context(read_deleted="yes")
    filters = {
        "deleted": True,
        "soft_deleted": False,
        "host": CONF.host,
        "cleaned": False,
    }
    found = objects.InstanceList.get_by_filters(
        context, filters, expected_attrs=["system_metadata"]
    )
    most = CONF.maximum_instance_delete_attempts
    return [
        each
        for each in found
        if int(each.system_metadata.get("clean_attempts", "0")) < most
    ]


def _delete_within_reach(uuid: str, silent: set[str]) -> None:
    """Delete an instance's disks in the pools that are not silent.

    :param silent: the silent pools that are known, to which it adds others
    """
    store = edge.store()
    reports, failed = edge.run(
        lambda: store.delete_within_reach(uuid, silent), waits=True
    )
    _log_deleted(uuid, reports)
    for pool, error in failed.items():
        if isinstance(error, errors.UNREACHED):
            silent.add(pool)
        else:
            text = "Disks of deleted instance %s stay in Ceph: %s"
            _STATES_OF_DELETER.tell(
                *(f"{uuid} {pool}", str(error), LOG.error, text, uuid, error)
            )


def _settle_once() -> bool:
    """Settle what ended spawns left; return False to be called again soon."""
    try:
        store = edge.store()
        with _STATES.run():
            found, failed = edge.run(store.spawns)
            if failed:
                _STATES.keep()
            for each in failed:
                _tell_not_looked(each, str(each.pool))
            abandoned = [
                (store.pool(name), entry)
                for name, entries in found.items()
                for entry in entries
                if journal.is_abandoned(store.pool(name), entry)
                or entry.age_seconds > _LONGEST_SPAWN_SECONDS
            ]
            if abandoned:
                # An instance may have disks in pools that are new here.
                edge.run(store.read_pools)
            settled = [_settle(*each) for each in abandoned]
            return all(settled) and not failed
    except Exception as error:
        _tell_not_looked(error)
        return False


def _tell_not_looked(error: Exception, pool: str = "") -> None:
    text = "Instances deleted without their host were not looked for: %s"
    _STATES.tell(f"pool {pool}", str(error), LOG.error, text, error)


def _settle(pool: Pool, entry: journal.Entry) -> bool:
    """Settle one spawn; return False if that failed.

    :raises nova.exception.StorageError: Ceph does not answer, and would not
        answer for the next spawn either
    """
    uuid = entry.image
    try:
        doubt = _end_or_doubt(pool, entry)
    except Exception as error:
        if isinstance(error.__cause__, errors.UNREACHED):
            raise
        _STATES.tell(
            uuid,
            str(error),
            LOG.error,
            "Disks of instance %s, whose spawn on %s has not ended, are "
            "still there: %s",
            *(uuid, entry.compute, error),
        )
        return False
    if doubt:
        _STATES.tell(
            uuid,
            doubt,
            LOG.warning,
            "Disks of instance %s, whose spawn on %s has not ended, stay: %s. "
            "If no other cell or cloud has it, 'nova-rbd orphans' lists them",
            *(uuid, entry.compute, doubt),
        )
    return True


def _end_or_doubt(pool: Pool, entry: journal.Entry) -> str | None:
    """End a spawn's entry if nothing is left to do.

    :returns: why its disks stay, if the operator has to look
    """
    uuid = entry.image
    found = _in_database(uuid)
    if found is None and entry.compute != CONF.host:
        return None  # It may be in another cell that uses the same pool.
    launched = found is not None and _is_launched_on(found, entry.compute)
    if launched or not edge.run(lambda: edge.store().disks(uuid)):
        _end(pool, entry)
    elif found is None:
        return "this cell's database does not have it"
    elif found.deleted and _is_kept(found):
        return _why_kept()
    elif found.deleted and _is_deleted_on(found, entry.compute):
        _delete(uuid)
        _end(pool, entry)
    elif found.deleted:
        return f"it was deleted on {found.host}"
    elif entry.compute == CONF.host:
        # An earlier process began it. Its entry ends when it is deleted here.
        _not_ended.add(uuid)
    return None


def _end(pool: Pool, entry: journal.Entry) -> None:
    edge.run(lambda: journal.end(pool, entry))
    _not_ended.discard(entry.image)


def _in_database(uuid: str) -> Any:
    """Return an instance of this cell, deleted or not; None: not known."""
    context = nova_context.get_admin_context(read_deleted="yes")
    try:
        # By default Nova reads the instance's network too.
        return objects.Instance.get_by_uuid(context, uuid, expected_attrs=[])
    except exception.InstanceNotFound:
        return None


def _is_launched_on(instance: Any, host: str) -> bool:
    """Return whether an instance has run, and is on this host.

    Nova then does not forget its host. If the instance is deleted while that
    host is down, the host finds it by that (_run_pending_deletes).
    """
    launched = instance.launched_at and not instance.deleted
    return bool(launched and instance.host == host)


def _is_deleted_on(instance: Any, host: str) -> bool:
    """Return whether an instance was deleted, on this host or on none.

    An instance that is hidden is in another cell, too.
    """
    on_no_other = instance.host in (None, host)
    return bool(instance.deleted and on_no_other and not instance.hidden)


def _is_kept(instance: Any) -> bool:
    """Return whether this host has a deleted instance's domain, and keeps it.

    Nova reaps such a domain, with its disks, or leaves it to the operator
    (_cleanup_running_deleted_instances, Nova 26 to 34).
    """
    try:
        _here.host.get_guest(instance)
    except exception.InstanceNotFound:
        return False
    seconds = CONF.running_deleted_instance_timeout
    reaped = CONF.running_deleted_instance_action == "reap"
    return not (
        reaped and timeutils.is_older_than(instance.deleted_at, seconds)
    )


def _why_kept() -> str:
    action = CONF.running_deleted_instance_action
    seconds = CONF.running_deleted_instance_timeout
    return (
        "libvirt has its domain, which Nova keeps (running_deleted_instance_"
        f"action = {action}, running_deleted_instance_timeout = {seconds})"
    )


def _delete(uuid: str) -> None:
    store = edge.store()
    _log_deleted(uuid, edge.run(lambda: store.delete(uuid), waits=True))


def _log_deleted(uuid: str, reports: Mapping[str, DeleteReport]) -> None:
    for pool, report in reports.items():
        if report.deleted:
            LOG.info(
                "Deleted %s from pool %s: instance %s was deleted without "
                "its host",
                ", ".join(report.deleted),
                pool,
                uuid,
            )
    PURGER.start()


#: Looks after the spawns whose nova-compute has died, or that have failed.
SETTLER = Background(_settle_once)

#: Deletes the disks behind an instance at which Nova's loop has ended.
DELETER = Background(_delete_pending_once)
