# SPDX-License-Identifier: Apache-2.0

"""Detach snapshots from the disks they are of, beside Nova's other work.

Any nova-compute's work: a snapshot of a host that died is found by the next
periodic run of another.
"""

from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging

from nova_rbd_backend import names
from nova_rbd_backend.storage import detaching, journal
from nova_rbd_backend.virt import image_service
from nova_rbd_backend.virt.background import Background
from nova_rbd_backend.virt.purger import PURGER
from nova_rbd_backend.virt.snapshot_pool import SnapshotPool

LOG = logging.getLogger(__name__)


def _detach_once() -> bool:
    """Detach all that can be; False: to be tried again soon."""
    storage = SnapshotPool()
    try:
        settled = [_settle(storage, entry) for entry in storage.abandoned()]
        return _detach(storage) and all(settled)
    except Exception as error:
        LOG.error("Snapshots were not detached: %s", error)
        return False


def _settle(storage: SnapshotPool, entry: journal.Entry) -> bool:
    """Keep or remove a snapshot whose maker died; False: not yet."""
    try:
        if not storage.may_be_known(entry):
            return _remove(storage, entry)
        if entry.age_seconds < image_service.ANSWER_SECONDS:
            return False  # Glance may still be at what it was asked.
        known = image_service.knows(names.glance_id(entry.image))
        if known:
            storage.accepted(entry)
        elif known is None:
            _tell_of_doubt(
                storage,
                entry,
                "Glance cannot be asked whether it has it: give the user of "
                "[service_user] the admin role",
            )
        elif _is_of_this_cell(storage, entry):
            return _remove(storage, entry)
        else:
            _tell_of_doubt(
                storage,
                entry,
                "its instance is not in this cell's database, so that it may "
                "be in another Glance",
            )
    except Exception as error:
        LOG.error(
            "What %s left of snapshot %s/%s is still there: %s",
            entry.host,
            storage.pool,
            entry.image,
            error,
        )
        return False
    return True


def _remove(storage: SnapshotPool, entry: journal.Entry) -> bool:
    if storage.remove_unknown(entry):
        PURGER.start()
        LOG.info(
            "Removed snapshot %s/%s, which Glance does not know",
            storage.pool,
            entry.image,
        )
    return True


def _is_of_this_cell(storage: SnapshotPool, entry: journal.Entry) -> bool:
    """Whether the Glance of this host is the one to be asked for it.

    Several clouds may have their snapshots in one pool.
    """
    uuid = storage.instance_of(entry)
    if uuid is None:
        return False
    context = nova_context.get_admin_context(read_deleted="yes")
    try:
        objects.Instance.get_by_uuid(context, uuid)
    except exception.InstanceNotFound:
        return False
    return True


def _tell_of_doubt(
    storage: SnapshotPool, entry: journal.Entry, why: str
) -> None:
    LOG.warning(
        "Snapshot %(pool)s/%(image)s, left by %(host)s, stays: %(why)s. "
        "Remove it by hand if no Glance has such an image",
        {
            "pool": storage.pool,
            "image": entry.image,
            "host": entry.host,
            "why": why,
        },
    )


def _detach(storage: SnapshotPool) -> bool:
    done = True
    for entry in storage.waiting():
        if storage.is_full():
            return False
        try:
            found = storage.detach(entry)
        except Exception as error:
            LOG.error(
                "Snapshot %s/%s is not detached: %s",
                storage.pool,
                entry.image,
                error,
            )
            done = False
            continue
        if found is not None and found.by != detaching.NOBODY:
            LOG.info(
                "Detached snapshot %(pool)s/%(image)s in %(seconds).1f s "
                "(copied by %(by)s)",
                {
                    "pool": storage.pool,
                    "image": found.image,
                    "seconds": found.seconds,
                    "by": found.by,
                },
            )
        # The disk, or the snapshot, may have been deleted meanwhile.
        PURGER.start()
    return done and not storage.settling()


#: The one of this nova-compute.
DETACHER = Background(_detach_once)
