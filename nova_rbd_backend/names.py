# SPDX-License-Identifier: Apache-2.0

"""The names of things on the cluster, as values."""

import dataclasses
import hashlib
import re
import urllib.parse
import uuid

from nova_rbd_backend import errors


def kind(name: str | None) -> str:
    """What an RBD image is to Nova, by its name."""
    if name is None:
        return "unknown"
    if is_base(name):
        return "base"
    if is_snapshot(name):
        return "snapshot"
    return "disk" if DiskName.parse(name) else "other"


_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DISK = re.compile(rf"(?P<instance_uuid>{_UUID})_(?P<disk>.+)")
# Of Nova 26 to 34 (libvirt/blockinfo.py, get_disk_mapping; driver.py).
_NOVAS = re.compile(r"disk(\.(local|swap|config|eph[0-9]+))?")
_SNAPSHOT = re.compile(rf"snapshot_{_UUID}")
_DRAFT = re.compile(r"(?P<image>.+)\.nova-rbd-draft-[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True)
class DiskName:
    """An instance's disk, named on the cluster as in-tree Nova names it."""

    instance_uuid: str
    disk: str

    def __str__(self) -> str:
        return f"{self.instance_uuid}_{self.disk}"

    @classmethod
    def parse(cls, image: str) -> "DiskName | None":
        """Read an RBD image's name; None: it is no instance's disk."""
        found = _DISK.fullmatch(image)
        return cls(**found.groupdict()) if found else None

    @staticmethod
    def prefix(instance_uuid: str) -> str:
        """What the names of all the instance's disks begin with."""
        return f"{instance_uuid}_"


def is_novas(disk: str) -> bool:
    """Whether Nova gives an instance's disk such a name, but in a rescue."""
    return _NOVAS.fullmatch(disk) is not None


def new_draft(image: str) -> str:
    """Return a new name for an image that is to get its own once it is whole.

    It begins with the image's, so that the in-tree backend's delete, by
    prefix, finds it too.
    """
    return f"{image}.nova-rbd-draft-{uuid.uuid4().hex[:12]}"


def final_name(image: str) -> str:
    """The name that a draft is to get; another image's name: itself."""
    found = _DRAFT.fullmatch(image)
    return found["image"] if found else image


def snapshot_image(image_id: str) -> str:
    """Return the name of the RBD image behind a snapshot.

    :param image_id: Glance's
    """
    return f"snapshot_{image_id}"


def glance_id(image: str) -> str:
    """Return the id in Glance of a snapshot's RBD image."""
    return image.removeprefix("snapshot_")


def is_snapshot(image: str) -> bool:
    """Whether an RBD image, or a draft of it, is a snapshot's."""
    return _SNAPSHOT.fullmatch(final_name(image)) is not None


BASE_PREFIX = "nova-base_"
_BASE = re.compile(rf"{BASE_PREFIX}(?P<source>.+)_[0-9a-f]{{12}}")


def base_image(source: str, content: str) -> str:
    """Return the name of the base that disks with this content are cloned of.

    :param source: Glance's image id, or what Nova calls a disk it generates
    :param content: what tells one content of that source from another
    """
    mark = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{BASE_PREFIX}{source}_{mark}"


def is_base(image: str) -> bool:
    """Whether an RBD image, or a draft of it, is a base."""
    return image.startswith(BASE_PREFIX)


def base_source(image: str) -> str | None:
    """What a base was made of, as base_image was told; None: it is none."""
    found = _BASE.fullmatch(final_name(image))
    return found["source"] if found else None


@dataclasses.dataclass(frozen=True)
class ImagePath:
    """An RBD image; str() as the ``rbd`` program writes it."""

    pool: str
    namespace: str
    image: str

    def __str__(self) -> str:
        parts = (self.pool, self.namespace, self.image)
        return "/".join(part for part in parts if part)

    def for_qemu(self, user: str | None, conf_file: str | None) -> str:
        """Return the name that qemu-img opens it by."""
        options = {"id": user, "conf": conf_file}
        return f"rbd:{self}" + "".join(
            f":{option}={value}" for option, value in options.items() if value
        )

    @classmethod
    def of_qemu(cls, path: str) -> "ImagePath | None":
        """Read ``[rbd:]pool/image[:option=value...]``; None: it is not so."""
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
        return f"{self.image_path}@{self.snap}"

    @property
    def image_path(self) -> ImagePath:
        return ImagePath(self.pool, self.namespace, self.image)


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

        :raises InvalidLocation: another scheme, or parts missing
        """
        scheme, _, rest = url.partition("://")
        parts = [urllib.parse.unquote(part) for part in rest.split("/")]
        if scheme != "rbd" or len(parts) != 4 or not all(parts):
            # The URL itself is not quoted: other schemes carry passwords.
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
