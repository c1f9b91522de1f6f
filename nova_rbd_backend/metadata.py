"""What each disk says of itself on the cluster: whose it is, made from what.

``rbd image-meta list POOL/DISK`` shows it to an operator without Nova.
"""

import importlib.metadata

from nova_rbd_backend import names

PREFIX = "nova."


def describe(
    disk: names.DiskName | None,
    project_id: str | None = None,
    image_id: str | None = None,
) -> dict[str, str]:
    """The image's metadata; what isn't known is left out."""
    known = {
        "instance": disk.instance_uuid if disk else None,
        "disk": disk.disk if disk else None,
        "project": project_id,
        "base_image": image_id,
        "backend": "nova_rbd_backend "
        + importlib.metadata.version("nova-rbd-backend"),
    }
    return {PREFIX + key: value for key, value in known.items() if value}
