# SPDX-License-Identifier: Apache-2.0

"""The names of images on the cluster, as values."""

import dataclasses
import hashlib
import re
import urllib.parse
import uuid

from nova_rbd_backend import errors

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DISK = re.compile(rf"(?P<instance_uuid>{_UUID})_(?P<disk>.+)")
# Nova 26 to 34 (libvirt/blockinfo.py, get_disk_mapping; driver.py).
_NOVAS = re.compile(r"disk(\.(local|swap|config|eph[0-9]+))?")
_SNAPSHOT = re.compile(rf"snapshot_{_UUID}")
_UNDONE = "-undone"
_DRAFT = re.compile(
    rf"(?P<image>.+)\.nova-rbd-draft-[0-9a-f]{{12}}(?:{_UNDONE})?"
)


@dataclasses.dataclass(frozen=True)
class DiskName:
    """An instance's disk, named on the cluster as in-tree Nova names it."""

    instance_uuid: str
    disk: str

    def __str__(self) -> str:
        return f"{self.instance_uuid}_{self.disk}"

    @classmethod
    def parse(cls, image: str) -> "DiskName | None":
        """Read an RBD image's name; None: not the name of a disk."""
        found = _DISK.fullmatch(image)
        return cls(**found.groupdict()) if found else None

    @staticmethod
    def prefix(instance_uuid: str) -> str:
        """Return the prefix of the names of all the instance's disks."""
        return f"{instance_uuid}_"


def is_novas(disk: str) -> bool:
    """Return whether Nova gives a disk such a name, except in a rescue."""
    return _NOVAS.fullmatch(disk) is not None


def new_draft(image: str) -> str:
    """Return a new name for a draft of an image.

    It begins with the image's name, so that the in-tree backend, which deletes
    disks by prefix, finds it, too.
    """
    return f"{image}.nova-rbd-draft-{uuid.uuid4().hex[:12]}"


def final_name(image: str) -> str:
    """Return the name that a draft gets when it is whole, or else the name."""
    found = _DRAFT.fullmatch(image)
    return found["image"] if found else image


def is_draft(image: str) -> bool:
    """Return whether an RBD image is a draft, undone or not."""
    return final_name(image) != image


def undone_draft(draft: str) -> str:
    """Return the name of a draft while it is undone.

    It is the same for all that undo the draft, and no maker publishes it.
    """
    return f"{made_draft(draft)}{_UNDONE}"


def made_draft(draft: str) -> str:
    """Return the name of a draft while it is made."""
    return draft.removesuffix(_UNDONE)


def snapshot_image(image_id: str) -> str:
    """Return the name of the RBD image for a snapshot's image id in Glance."""
    return f"snapshot_{image_id}"


def glance_id(image: str) -> str:
    """Return the id in Glance of a snapshot's RBD image."""
    return image.removeprefix("snapshot_")


def is_snapshot(image: str) -> bool:
    """Return whether an RBD image is a snapshot, or a draft of one."""
    return _SNAPSHOT.fullmatch(final_name(image)) is not None


BASE_PREFIX = "nova-base_"
_BASE = re.compile(rf"{BASE_PREFIX}(?P<source>.+)_[0-9a-f]{{12}}")


def base_image(source: str, content: str) -> str:
    """Return the name of the base for disks with this content.

    :param source: an image id of Glance, or Nova's name for a generated disk
    :param content: distinguishes different contents of that source
    """
    mark = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{BASE_PREFIX}{source}_{mark}"


def is_base(image: str) -> bool:
    """Return whether an RBD image is a base, or a draft of one."""
    return image.startswith(BASE_PREFIX)


def base_source(image: str) -> str | None:
    """Return the ``source`` of a base's name; None: it is no base."""
    found = _BASE.fullmatch(final_name(image))
    return found["source"] if found else None


def kind(name: str | None) -> str:
    """Return what an RBD image is to this backend, judged by its name."""
    if name is None:
        return "unknown"
    if is_base(name):
        return "base"
    if is_snapshot(name):
        return "snapshot"
    return "disk" if DiskName.parse(name) else "other"


@dataclasses.dataclass(frozen=True)
class ImagePath:
    """An RBD image; str() as the ``rbd`` program writes it."""

    pool: str
    namespace: str
    image: str

    def __str__(self) -> str:
        parts = (self.pool, self.namespace, self.image)
        return "/".join(part for part in parts if part)

    def for_qemu(
        self, user: str | None, conf_file: str | None, **conf: object
    ) -> str:
        """Return the name that qemu-img opens it by.

        :param conf: further options of Ceph
        """
        options = {"id": user, "conf": conf_file, **conf}
        return f"rbd:{self}" + "".join(
            f":{option}={value}" for option, value in options.items() if value
        )

    @classmethod
    def of_qemu(cls, path: str) -> "ImagePath | None":
        """Read ``[rbd:]pool/image[:option=value...]``; None: another form."""
        name = path.removeprefix("rbd:").partition(":")[0]
        pool, _, image = name.partition("/")
        return cls(pool, "", image) if pool and image else None


@dataclasses.dataclass(frozen=True)
class SnapPath:
    """A snap of an RBD image; str() as the ``rbd`` program writes it."""

    pool: str
    namespace: str
    image: str
    snap: str

    def __str__(self) -> str:
        path = ImagePath(self.pool, self.namespace, self.image)
        return f"{path}@{self.snap}"


@dataclasses.dataclass(frozen=True)
class GlanceLocation:
    """Where Glance's RBD store keeps an image."""

    fsid: str
    pool: str
    image: str
    snap: str

    @classmethod
    def parse(cls, url: str) -> "GlanceLocation":
        """Read ``rbd://fsid/pool/image/snap``, each part percent-encoded.

        :raises InvalidLocation: another scheme, or a part is missing
        """
        scheme, _, rest = url.partition("://")
        parts = [urllib.parse.unquote(part) for part in rest.split("/")]
        if scheme != "rbd" or len(parts) != 4 or not all(parts):
            # Without the URL itself, which may contain a password.
            raise errors.InvalidLocation(
                f"a location of scheme {scheme[:20]!r} with {len(parts)} parts"
            )
        return cls(*parts)

    @property
    def url(self) -> str:
        parts = (self.fsid, self.pool, self.image, self.snap)
        return "rbd://" + "/".join(
            urllib.parse.quote(part, safe="") for part in parts
        )

    @property
    def snap_path(self) -> SnapPath:
        return SnapPath(self.pool, "", self.image, self.snap)
