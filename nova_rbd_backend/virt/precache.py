# SPDX-License-Identifier: Apache-2.0

"""Have an image in the pool before it is booted (nova aggregate cache)."""

from collections.abc import Mapping
from typing import Any

import nova.conf
from nova import exception
from nova.image import glance
from nova.virt import images
from nova.virt.libvirt import imagebackend
from oslo_log import log as logging

from nova_rbd_backend import conf
from nova_rbd_backend.virt import (
    base_images,
    base_pool,
    image_source,
    rbd_utils,
)

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
IMAGE_API = glance.API()


def have(context: Any, image_id: str) -> bool:
    """Have the image where boots clone it from; whether it was copied now.

    That is Glance's store in this cluster, where Glance can be asked to copy
    a raw image there, and otherwise a base. False too for an image that is
    there already. A base is made in the pool of the default storage class.
    """
    rbd = rbd_utils.in_class(conf.settings(CONF).default_class)
    image_meta = IMAGE_API.get(context, image_id, include_locations=True)
    image_source.require_active(image_meta)
    clones_location = not image_source.verified_with(None)
    if clones_location and image_source.location_here(rbd, image_meta):
        return False
    wanted = image_source.base_of_image(image_meta, None)
    bases = base_images.BaseImages(rbd)
    if bases.find(wanted):
        base_pool.BasePool(pool=rbd.pool).touch(wanted.name)
        return False
    if clones_location and _copied_by_glance(context, image_meta):
        return True
    if CONF.workarounds.never_download_image_if_on_rbd:
        raise exception.ImageUnacceptable(
            image_id=image_id,
            reason="it cannot be cloned, and [workarounds] "
            "never_download_image_if_on_rbd keeps it from being fetched",
        )

    def fetch(path: str) -> None:
        images.fetch_to_raw(context, image_id, path)

    return bases.ensure(wanted, fetch).made


def _copied_by_glance(context: Any, image_meta: Mapping[str, Any]) -> bool:
    """Have Glance copy it into its store in this cluster, as a boot does."""
    if (
        image_meta.get("disk_format") not in image_source.CLONEABLE_FORMATS
        or not CONF.libvirt.images_rbd_glance_store_name
    ):
        return False
    try:
        # Of the image it takes nothing but these two (Nova 26 to 34).
        imagebackend.Rbd.copy_to_store(None, context, image_meta)
    except exception.ImageUnacceptable as why:
        LOG.info("Glance did not copy an image into this cluster: %s", why)
        return False
    found = IMAGE_API.get(context, image_meta["id"], include_locations=True)
    rbd = rbd_utils.RBDDriver()
    return image_source.location_here(rbd, found) is not None
