# SPDX-License-Identifier: Apache-2.0

"""The requests of a snapshot to Glance, through Nova's client for Glance.

Nova 32 and later add a location, in Glance 30 and later, by a call that Glance
answers before it has checked the location. The image's status then shows
whether Glance accepted it (glance/async_/flows/location_import.py, Glance 33).
"""

import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import glanceclient.exc
import nova.conf
import tenacity
from keystoneauth1 import loading
from nova import context as nova_context
from nova import exception
from nova.compute import utils as compute_utils
from nova.image import glance
from oslo_log import log as logging

from nova_rbd_backend.ceph.stream import ImageReader

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()

#: How long Glance may take to accept or refuse a location.
ANSWER_SECONDS = 60
#: How long a queued image is watched after an error that does not tell whether
#: Glance goes on with the location.
LATE_SECONDS = 10
_POLL_SECONDS = 0.2
# After these errors Glance does not go on.
_REFUSALS = (
    exception.Invalid,
    exception.Forbidden,
    exception.ImageNotAuthorized,
    glanceclient.exc.HTTPNotImplemented,
)
# Glance's own mark on an image that one of its tasks works on.
_TASK = "os_glance_import_task"


#: Data that can be read once more from its beginning.
Rewindable = BinaryIO | ImageReader


class _Body:
    """An image's data, which each attempt sends from its beginning.

    Nova's client for Glance tries again with the same object
    (nova.image.glance, call(), Nova 26 to 34), and would go on where the first
    attempt broke off. Each attempt begins with glanceclient's test whether
    there is a body (http.py, _chunk_body), the only time that it tests this.
    """

    def __init__(self, data: Rewindable) -> None:
        self._data = data

    def __bool__(self) -> bool:
        self._data.seek(0)
        return True

    def read(self, length: int = -1) -> bytes:
        return self._data.read(length)


class OtherData(exception.StorageError):  # type: ignore[misc]
    """The image has got other data than ours, which its owner may upload."""


def offer(
    context: Any,
    image_id: str,
    metadata: Mapping[str, Any],
    url: str,
    size_bytes: int,
) -> bool:
    """Give Glance the location of a queued image; return if it accepts it.

    :param size_bytes: of the image at the location
    :raises nova.exception.ImageNotFound: the image is deleted
    :raises OtherData: the image has other data; it is deleted
    :raises Exception: Glance does not tell whether it accepts the location
    """
    reason: object = "it gave no reason; see its log"
    late_seconds = 0
    try:
        given = {**metadata, "location": url}
        IMAGE_API.update(context, image_id, given, purge_props=False)
    except exception.ImageNotFound:
        raise
    except Exception as error:
        reason = error
        if not isinstance(error, _REFUSALS):
            # Glance's answer was lost, and it may still work on the location.
            late_seconds = LATE_SECONDS
    if _is_active_soon(context, image_id, late_seconds):
        found = IMAGE_API.get(context, image_id)
        if _is_ours(found, size_bytes):
            return True
        _delete(context, image_id)
        raise OtherData(
            reason=f"image {image_id} has got {found['size']} bytes from "
            "elsewhere while its snapshot was made; it is deleted: try again"
        )
    LOG.info(
        "Glance does not take location %s for image %s, which is uploaded "
        "instead: %s",
        url,
        image_id,
        reason,
    )
    return False


def _is_ours(image: Mapping[str, Any], size_bytes: int) -> bool:
    """Return whether an active image has a snapshot of this size as its data.

    With a location that it is given, Glance asks its store for the size
    (glance/location.py, _set_image_size), unless it has data already.
    """
    return bool(image["size"] == size_bytes)


def _is_active_soon(context: Any, image_id: str, late_seconds: int) -> bool:
    """Wait for Glance's task, and return whether the image is active.

    :param late_seconds: how long it may take until the task begins
    """
    begin = time.monotonic()

    def undecided(active: bool | None) -> bool:
        late = time.monotonic() - begin < late_seconds
        return active is None or (late and not active)

    attempts = tenacity.Retrying(
        retry=(
            tenacity.retry_if_result(undecided)
            | tenacity.retry_if_not_exception_type(exception.ImageNotFound)
        ),
        stop=tenacity.stop_after_delay(ANSWER_SECONDS),
        wait=tenacity.wait_fixed(_POLL_SECONDS),
    )
    try:
        return bool(attempts(_is_active, context, image_id))
    except tenacity.RetryError as error:
        raise exception.GlanceConnectionFailed(
            server="Glance",
            reason=f"whether image {image_id} has its location is unknown "
            f"after {ANSWER_SECONDS} s: {error.last_attempt.exception()}",
        ) from error


def _is_active(context: Any, image_id: str) -> bool | None:
    """Return whether the image has data; None: Glance has yet to decide."""
    image = IMAGE_API.get(context, image_id)
    if image["status"] == "queued":
        return None if _TASK in image["properties"] else False
    if image["status"] in ("active", "deactivated"):
        return True
    if image["status"] in ("deleted", "pending_delete", "killed"):
        raise exception.ImageNotFound(image_id=image_id)
    return None


def upload(
    context: Any,
    image_id: str,
    metadata: Mapping[str, Any],
    data: Rewindable,
    size_bytes: int,
) -> None:
    """Send the image's data; delete the image if that fails.

    :param size_bytes: of all the data
    :raises nova.exception.StorageError: Glance received less
    """
    try:
        with compute_utils.disk_ops_semaphore:
            given, body = dict(metadata), _Body(data)
            image = IMAGE_API.update(
                context, image_id, given, body, purge_props=False
            )
        # A retry below Nova (keystoneauth1) does not start from the beginning.
        # The image becomes active nevertheless, and shelve would then delete
        # the disk.
        got = image.get("size")
        if got != size_bytes:
            raise exception.StorageError(
                reason=f"Glance got {got} of {size_bytes} bytes of image "
                f"{image_id}, which is deleted: see the log of glance-api "
                "for the reason why the upload broke off, and try again"
            )
    except BaseException:
        _delete(context, image_id)
        raise


def _delete(context: Any, image_id: str) -> None:
    try:
        IMAGE_API.delete(context, image_id)
    except exception.ImageNotFound:
        pass
    except Exception as error:
        LOG.error(
            "Image %s is not whole and could not be deleted, do not use it: "
            "%s",
            image_id,
            error,
        )


class CannotAsk(Exception):
    """Glance does not answer Nova's own user; the text says why."""


class NoAdmin(CannotAsk):
    """The user of [service_user] may not ask for everybody's images."""


def knows(image_id: str, size_bytes: int) -> bool | None:
    """Return whether Glance has an image of this size; None: it is undecided.

    It stays undecided for good if glance-api died while it took the image's
    location.

    There is no user's request to ask for, so Nova's own user asks. That user
    must be an admin, because Glance hides the images of other projects from
    all other users.

    :raises CannotAsk: neither is known
    """
    try:
        context = _as_admin()
        active = _is_active(context, image_id)
        if active:
            found = IMAGE_API.get(context, image_id)
            return _is_ours(found, size_bytes)
        return active
    except exception.ImageNotFound:
        return False
    except CannotAsk:
        raise
    except Exception as error:
        raise CannotAsk(f"Glance or Keystone fails: {error}") from error


def _as_admin() -> Any:
    """Return a request context of Nova's own user.

    :raises NoAdmin: that user is not configured, or is no admin
    """
    auth: Any = loading.load_auth_from_conf_options(CONF, "service_user")
    if auth is None:
        raise NoAdmin("nova.conf has no user in [service_user]")
    session = loading.load_session_from_conf_options(CONF, "service_user")
    if "admin" not in auth.get_access(session).role_names:
        why = "the user of [service_user] does not have the role admin"
        raise NoAdmin(why)
    return nova_context.RequestContext(is_admin=True, user_auth_plugin=auth)
