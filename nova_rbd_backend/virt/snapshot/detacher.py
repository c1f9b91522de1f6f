# SPDX-License-Identifier: Apache-2.0

"""Detach snapshots from their disks in the background.

Any nova-compute can detach any snapshot. The periodic run of one finds the
snapshots of a host that died.
"""

from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging

from nova_rbd_backend import metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background.purger import PURGER
from nova_rbd_backend.virt.background.worker import Background
from nova_rbd_backend.virt.snapshot import glance

LOG = logging.getLogger(__name__)

# Why a snapshot stays that Glance may not know.
_NOT_ASKED = (
    "Glance cannot be asked whether it has it: give the user of "
    "[service_user] the admin role"
)
_ELSEWHERE = (
    "its instance is not in this cell's database, so that it may be in "
    "another Glance"
)


def _detach_once() -> bool:
    """Detach what can be detached; return False to be called again soon."""
    try:
        pool = edge.store().snapshots
        abandoned = edge.run(lambda: detach.abandoned(pool))
        settled = [_settle(pool, entry) for entry in abandoned]
        return _detach(pool) and all(settled)
    except Exception as error:
        LOG.error("Snapshots were not detached: %s", error)
        return False


def _settle(pool: Pool, entry: journal.Entry) -> bool:
    """Keep or remove a snapshot whose maker died; False: not possible yet."""
    try:
        if not edge.run(lambda: detach.may_be_known(pool, entry)):
            _remove(pool, entry)
        elif entry.age_seconds < glance.ANSWER_SECONDS:
            return False  # Glance may still work on the offered location.
        elif known := glance.knows(names.glance_id(entry.image)):
            accepted = journal.Offer.ACCEPTED
            edge.run(lambda: journal.record_offer(pool, entry, accepted))
        elif known is not None and _is_of_this_cell(pool, entry):
            _remove(pool, entry)
        else:
            LOG.warning(
                "Snapshot %(pool)s/%(image)s, left by %(host)s, stays: "
                "%(why)s. Remove it by hand if no Glance has such an image",
                {
                    "pool": pool,
                    "image": entry.image,
                    "host": entry.host,
                    "why": _NOT_ASKED if known is None else _ELSEWHERE,
                },
            )
    except Exception as error:
        LOG.error(
            "What %s left of snapshot %s/%s is still there: %s",
            entry.host,
            pool,
            entry.image,
            error,
        )
        return False
    return True


def _remove(pool: Pool, entry: journal.Entry) -> None:
    if edge.run(lambda: detach.remove_unknown(pool, entry), long=True):
        PURGER.start()
        LOG.info(
            "Removed snapshot %s/%s, which Glance does not know",
            pool,
            entry.image,
        )


def _is_of_this_cell(pool: Pool, entry: journal.Entry) -> bool:
    """Return whether the snapshot would be in this host's Glance.

    Several clouds may have their snapshots in one pool.
    """
    facts = edge.run(lambda: pool.headers.metadata(entry.image_id))
    uuid = facts.get(metadata.INSTANCE)
    if uuid is None:
        return False
    context = nova_context.get_admin_context(read_deleted="yes")
    try:
        objects.Instance.get_by_uuid(context, uuid)
    except exception.InstanceNotFound:
        return False
    return True


def _detach(pool: Pool) -> bool:
    settings = edge.settings()
    done = True
    waiting = edge.run(
        lambda: detach.waiting(pool, settings.clone_depth_soft_limit)
    )
    for entry in waiting:
        at_work = edge.run(lambda: detach.at_work(pool))
        if at_work >= settings.detach_at_once:
            return False
        done = _detach_one(pool, entry) and done
    return done and not edge.run(lambda: detach.awaits_release(pool))


def _detach_one(pool: Pool, entry: journal.Entry) -> bool:
    try:
        found = edge.run(lambda: detach.detach(pool, entry), long=True)
    except Exception as error:
        LOG.error(
            "Snapshot %s/%s is not detached: %s", pool, entry.image, error
        )
        return False
    if found is not None and found.by != detach.NOBODY:
        LOG.info(
            "Detached snapshot %s/%s in %.1f s (copied by %s)",
            pool,
            found.image,
            found.seconds,
            found.by,
        )
    # A disk or snapshot that was deleted meanwhile can be purged now.
    PURGER.start()
    return True


#: The detacher of this nova-compute.
DETACHER = Background(_detach_once)
