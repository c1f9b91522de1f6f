# SPDX-License-Identifier: Apache-2.0

"""Detach snapshots from their disks in the background.

Each nova-compute detaches the snapshots that it has made, while it has one of
a few slots. In each period, one of the hosts finds the snapshots of all hosts,
also of those that died.
"""

import contextlib
from collections.abc import Iterator

from nova import context as nova_context
from nova import exception, objects
from oslo_log import log as logging

from nova_rbd_backend import metadata, names
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.storage import journal
from nova_rbd_backend.storage.snapshots import detach
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.background import lasting, turns
from nova_rbd_backend.virt.background.purger import PURGER
from nova_rbd_backend.virt.background.worker import Background
from nova_rbd_backend.virt.snapshot import glance

LOG = logging.getLogger(__name__)

_STATES = lasting.States()


def _detach_once() -> bool:
    """Detach what can be detached; return False to be called again soon."""
    try:
        with _STATES.run():
            pool, seconds = edge.store().snapshots, turns.seconds()
            look = edge.run(lambda: detach.look_by_turns(pool, seconds))
            at_work = any(map(journal.is_claimed, look.entries))
            if at_work or not look.is_whole:
                _STATES.keep()  # What others detach is not looked at here.
            abandoned = edge.run(lambda: detach.abandoned(pool, look.entries))
            settled = [_settle(pool, entry) for entry in abandoned]
            entries = look.entries
            if abandoned:
                entries = edge.run(lambda: journal.read_again(pool, entries))
            return _detach(pool, entries) and all(settled)
    except Exception as error:
        text = "Snapshots were not detached: %s"
        _STATES.tell("", str(error), LOG.error, text, error)
        return False


def _settle(pool: Pool, entry: journal.Entry) -> bool:
    """Keep or remove a snapshot whose maker died; False: not possible yet."""
    try:
        if not edge.run(lambda: detach.may_be_known(pool, entry)):
            _remove(pool, entry)
        elif entry.age_seconds < glance.ANSWER_SECONDS:
            return False  # Glance may still work on the offered location.
        else:
            return _settle_as_glance_says(pool, entry)
    except Exception as error:
        _STATES.tell(
            entry.image,
            str(error),
            LOG.error,
            "What %s left of snapshot %s/%s is still there: %s",
            *(entry.host, pool, entry.image, error),
        )
        return False
    return True


def _settle_as_glance_says(pool: Pool, entry: journal.Entry) -> bool:
    """Keep or remove a snapshot that Glance was asked to take.

    :returns: False: Glance is to be asked again soon
    """
    image_id = names.glance_id(entry.image)
    try:
        size_bytes = edge.run(lambda: pool.headers.size_bytes(entry.image_id))
        known = glance.knows(image_id, size_bytes)
    except glance.NoAdmin as error:
        why = (
            f"Glance cannot be asked whether it has image {image_id}: "
            f"{error}. Give that user this role, or remove the snapshot by "
            "hand if no Glance has the image"
        )
        _stays(pool, entry, why)
        return True
    except glance.CannotAsk as error:
        why = f"Glance cannot be asked whether it has image {image_id}"
        _stays(pool, entry, f"{why}: {error}")
        return False
    if known is None:
        why = (
            f"Glance has not decided about its location for image {image_id}. "
            "If a glance-api was stopped meanwhile it never will: then delete "
            f"the image ('openstack image delete {image_id}'), and the "
            "snapshot is removed too"
        )
        _stays(pool, entry, why)
        return False
    if known:
        accepted = journal.Offer.ACCEPTED
        edge.run(lambda: journal.record_offer(pool, entry, accepted))
    elif _is_of_this_cell(pool, entry):
        _remove(pool, entry)
    else:
        why = (
            "its instance is not in this cell's database, so that it may be "
            "in another Glance. Remove it by hand if no Glance has image "
            f"{image_id}"
        )
        _stays(pool, entry, why)
    return True


def _stays(pool: Pool, entry: journal.Entry, why: str) -> None:
    _STATES.tell(
        entry.image,
        why,
        LOG.warning,
        "Snapshot %s/%s, left by %s, stays: %s",
        *(pool, entry.image, entry.host, why),
    )


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


def _detach(pool: Pool, entries: list[journal.Entry]) -> bool:
    settings = edge.settings()
    waiting = edge.run(
        lambda: detach.waiting(pool, entries, settings.clone_depth_soft_limit)
    )
    if not waiting:
        return not edge.run(lambda: detach.awaits_release(pool))
    with _slot(pool, settings.detach_at_once) as has_slot:
        if not has_slot:
            _STATES.keep()
            return False
        done = [_detach_one(pool, entry) for entry in waiting]
    return all(done) and not edge.run(lambda: detach.awaits_release(pool))


@contextlib.contextmanager
def _slot(pool: Pool, at_once: int) -> Iterator[bool]:
    stack = contextlib.ExitStack()  # both its ends send requests
    slot = detach.slot(pool, at_once)
    has_slot = edge.run(lambda: stack.enter_context(slot))
    try:
        yield has_slot
    finally:
        edge.run(stack.close)


def _detach_one(pool: Pool, entry: journal.Entry) -> bool:
    try:
        found = edge.run(lambda: detach.detach(pool, entry), long=True)
    except Exception as error:
        _STATES.tell(
            entry.image,
            str(error),
            LOG.error,
            "Snapshot %s/%s is not detached: %s",
            *(pool, entry.image, error),
        )
        return False
    if found is None:
        _STATES.keep()
    elif found.by != detach.NOBODY:
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
