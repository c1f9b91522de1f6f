# SPDX-License-Identifier: Apache-2.0

"""Copy an image into the pool before it is booted (nova aggregate cache)."""

from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.image import glance
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_rbd_backend.storage.bases import age
from nova_rbd_backend.virt import edge
from nova_rbd_backend.virt.boot import bases, glance_image, nova_fetch

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()


def have(context: Any, image_id: str) -> bool:
    """Make sure that the image is where boots clone it from.

    This is Glance's store in this cluster if Glance can copy a raw image there
    on request. Otherwise it is a base in the pool of the default storage
    class.

    :returns: whether this call copied the image
    """
    store = edge.store()
    pool = store.of(store.settings.default_class)
    image_meta = IMAGE_API.get(context, image_id, include_locations=True)
    glance_image.require_usable(image_meta)
    clones_location = not glance_image.verified_with(None)
    if clones_location and glance_image.location_here(image_meta):
        return False
    wanted = glance_image.base_of_image(image_meta, None)
    of_pool = bases.BaseImages(pool)
    if of_pool.find(wanted):
        # A touched base does not age out for some more time.
        edge.run(lambda: age.touch(pool, wanted.name))
        return False
    if clones_location and _copied_by_glance(context, image_meta):
        return True
    if CONF.workarounds.never_download_image_if_on_rbd:
        raise exception.ImageUnacceptable(
            image_id=image_id,
            reason="it cannot be cloned, and [workarounds] "
            "never_download_image_if_on_rbd keeps it from being fetched",
        )

    def prepare(path: str) -> None:
        nova_fetch.fetch_image(context, path, image_id)

    # An administrator asks for it, whatever its size is.
    return of_pool.ensure(wanted, prepare, lambda _bytes: None).made


def _copied_by_glance(context: Any, image_meta: Mapping[str, Any]) -> bool:
    """Let Glance copy an image into its store in this cluster, as boots do."""
    if (
        image_meta.get("disk_format") not in glance_image.CLONEABLE_FORMATS
        or not CONF.libvirt.images_rbd_glance_store_name
    ):
        return False
    try:
        # It does not use self (Nova 26 to 34).
        imagebackend.Rbd.copy_to_store(None, context, image_meta)
    except exception.ImageUnacceptable as why:
        LOG.info("Glance did not copy an image into this cluster: %s", why)
        return False
    found = IMAGE_API.get(context, image_meta["id"], include_locations=True)
    return glance_image.location_here(found) is not None
