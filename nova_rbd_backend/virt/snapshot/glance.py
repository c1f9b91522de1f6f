# SPDX-License-Identifier: Apache-2.0

"""What a snapshot asks of Glance, through Nova's client for it.

Nova 32 and later give Glance 30 and later a location by a call that Glance
answers before it has looked at the location: whether it took it shows in the
image's status (glance/async_/flows/location_import.py, Glance 33).
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

import glanceclient.exc
import nova.conf
import tenacity
from keystoneauth1 import loading
from nova import context as nova_context
from nova import exception
from nova.compute import utils as compute_utils
from nova.image import glance
from oslo_log import log as logging

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()

#: How long Glance may take to say whether it took a location.
ANSWER_SECONDS = 60
#: After an error that does not say whether it goes on with it.
LATE_SECONDS = 10
_POLL_SECONDS = 0.2
# After these it does not.
_REFUSALS = (
    exception.Invalid,
    exception.Forbidden,
    exception.ImageNotAuthorized,
    glanceclient.exc.HTTPNotImplemented,
)
# Glance's own mark on an image that a task of its works on.
_TASK = "os_glance_import_task"


class Rewindable(Protocol):
    def read(self, length: int = -1, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...


class _Body:
    """An image's data, sent from its beginning by each attempt.

    Nova's client for Glance tries again with what it was given
    (nova.image.glance, call(), Nova 26 to 34), and would go on where it was
    broken off. An attempt begins with glanceclient asking whether there is
    a body at all (http.py, _chunk_body), and it asks at no other time.
    """

    def __init__(self, data: Rewindable) -> None:
        self._data = data

    def __bool__(self) -> bool:
        self._data.seek(0)
        return True

    def read(self, length: int = -1) -> bytes:
        return self._data.read(length)


def offer(
    context: Any, image_id: str, metadata: Mapping[str, Any], url: str
) -> bool:
    """Give Glance the location of a queued image; whether it took it.

    :raises nova.exception.ImageNotFound: the image is deleted
    :raises Exception: Glance does not say whether it took it
    """
    reason: object = "it gave no reason; see its log"
    late_seconds = 0
    try:
        IMAGE_API.update(
            context,
            image_id,
            {**metadata, "location": url},
            purge_props=False,
        )
    except exception.ImageNotFound:
        raise
    except Exception as error:
        reason = error
        if not isinstance(error, _REFUSALS):
            # Its answer was lost, and it may be at it still.
            late_seconds = LATE_SECONDS
    if _is_active_soon(context, image_id, late_seconds):
        return True
    LOG.info(
        "Glance does not take location %(url)s for image %(image)s, which is "
        "uploaded instead: %(reason)s",
        {"url": url, "image": image_id, "reason": reason},
    )
    return False


def _is_active_soon(context: Any, image_id: str, late_seconds: int) -> bool:
    """Whether the image is active, once no task of Glance's is at it.

    :param late_seconds: how long that may take to begin
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
    """Whether the image has data; None: that is being decided."""
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
    """Send the image's data; where that fails the image is deleted.

    :param size_bytes: of all the data
    :raises nova.exception.StorageError: Glance has not got so much of it
    """
    try:
        with compute_utils.disk_ops_semaphore:
            image = IMAGE_API.update(
                context,
                image_id,
                dict(metadata),
                _Body(data),
                purge_props=False,
            )
        # A retry below Nova (keystoneauth1) does not begin anew. Its image is
        # active all the same, and shelve would delete the disk for it.
        got = image.get("size")
        if got != size_bytes:
            raise exception.StorageError(
                reason=f"Glance got {got} of {size_bytes} bytes of image "
                f"{image_id}, which is deleted: see the log of glance-api "
                "for what broke the upload off, and try again"
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
            "Image %(image)s is not whole and could not be deleted, do not "
            "use it: %(reason)s",
            {"image": image_id, "reason": error},
        )


def knows(image_id: str) -> bool | None:
    """Whether Glance has an image with data; None: it cannot be asked.

    Asked by nobody's request, as Nova's own user, who has to be an admin: for
    any other an image of somebody else's project is not there either.
    """
    try:
        auth: Any = loading.load_auth_from_conf_options(CONF, "service_user")
        if auth is None:
            return None
        session = loading.load_session_from_conf_options(CONF, "service_user")
        roles = auth.get_access(session).role_names
        if "admin" not in roles:
            return None
        context = nova_context.RequestContext(
            is_admin=True, user_auth_plugin=auth
        )
        return _is_active(context, image_id)
    except exception.ImageNotFound:
        return False
    except Exception as error:
        LOG.debug("Glance cannot be asked for %s: %s", image_id, error)
        return None
