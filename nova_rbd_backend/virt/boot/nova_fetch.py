# SPDX-License-Identifier: Apache-2.0

"""Fetch an image by Nova's own code, but write and convert it by ours.

Nova's images.fetch_to_raw downloads an image into a file, checks the file, and
converts it into a raw file unless it is raw. All checks stay Nova's, in its
own code, whichever its release is. In the calls made here that code sees two
functions of ours in place of Nova's: a download that does not hold up the
event loop, and that passes on the bytes of a raw image to be written into the
pool; and a conversion that is put off, so that another image is converted
straight into the pool. Nova's modules are not changed. All other calls, as for
a snapshot of a local disk, are Nova's alone.
"""

import functools
import io
import json
import os
import shutil
import types
from collections.abc import Callable
from typing import Any, BinaryIO

import nova.conf
from nova import exception
from nova.virt import images
from nova.virt.libvirt import utils as libvirt_utils
from oslo_concurrency import processutils
from oslo_log import log as logging
from oslo_utils import units

from nova_rbd_backend import threads
from nova_rbd_backend.ceph.incoming import PIECE_BYTES, Incoming
from nova_rbd_backend.storage.images.draft import Packed
from nova_rbd_backend.virt import compat
from nova_rbd_backend.virt.boot import staging
from nova_rbd_backend.virt.boot.beside import Beside

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
# Another greenlet can run each time that so much has come. It fits into the
# cache of a processor: with 4 MiB the download took up to twice as long.
_AT_ONCE_BYTES = units.Mi
# Nova gives qemu-img 30 s of CPU to look at an image.
_LOOK_SECONDS = 120


def instead_of(fetch_func: Callable[..., None]) -> Callable[..., None]:
    """Return what to fetch an image by in place of Nova's function.

    :param fetch_func: what Nova hands to Image.cache()
    :returns: the same, if it may do more than this backend knows
    """
    return fetch_func if _is_unknown(fetch_func) else fetch_image


def fetch_image(
    context: Any, target: str, image_id: str, trusted_certs: Any = None
) -> None:
    """Fetch and check an image, as Nova's function of this name does.

    Does not try to clone the image first: that has been tried by now.

    :param target: the path of a staged file, which gets to know it if the
        conversion was put off
    """
    staged = staging.at(target)
    if (
        staged is None
        or _is_unknown(libvirt_utils.fetch_image)
        or _is_unknown(images.fetch_to_raw)
        or _is_unknown(images.fetch)
    ):
        libvirt_utils.fetch_image(context, target, image_id, trusted_certs)
        return
    seen = {
        **vars(images),
        "IMAGE_API": _Glance(images.IMAGE_API, _streamed(staged)),
        "convert_image": functools.partial(_convert_image, staged),
    }
    seen["fetch"] = _seeing(seen, images.fetch)
    fetch_to_raw = _seeing(seen, images.fetch_to_raw)
    fetch_to_raw(context, image_id, target, trusted_certs)


def _streamed(staged: staging.StagedFile) -> Beside[Any] | None:
    """Return what takes the image's bytes; None: they go into a file.

    Without Nova's deep inspection a raw image may be found to have another
    format. Nova opens the path itself if it copies an image from Ceph.
    """
    # Nova 26 has neither, but distributions may have added both.
    is_inspected = compat.uses(
        images.fetch_to_raw, "do_image_deep_inspection"
    ) and not getattr(CONF.workarounds, "disable_deep_image_inspection", True)
    if is_inspected and not CONF.glance.enable_rbd_download:
        return staged.beside
    return None


def _seeing(
    seen: dict[str, Any], function: Callable[..., None]
) -> Callable[..., None]:
    """Return a function of Nova's that sees these names in its module."""
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(
        function.__code__,
        seen,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def _is_unknown(function: Callable[..., None]) -> bool:
    if why := compat.unknown_step(function):
        _log_nova_converts(f"this Nova may do more than is known: {why}")
    return why is not None


@functools.cache
def _log_nova_converts(why: str) -> None:
    """Log once that Nova itself converts images, and why."""
    LOG.warning(
        "Images that are not raw take twice their size on the local disk, "
        "because %s",
        why,
    )


class _Glance:
    """What Nova's images module calls of its API of Glance."""

    def __init__(self, api: Any, beside: Beside[Any] | None = None) -> None:
        """:param beside: takes the bytes of a download, if it is not None"""
        self._api, self._beside = api, beside
        self.get = api.get

    def download(
        self,
        context: Any,
        image_id: str,
        dest_path: str,
        trusted_certs: Any = None,
    ) -> None:
        """Download an image, check its hash and signature, and sync the file.

        Nova writes into a file that it is given, unless it copies an image
        from Ceph, for which it opens the path itself. It does not sync the
        former.
        """
        if self._beside is not None:
            self._stream(context, image_id, dest_path, trusted_certs)
            return
        raw_file = _OffTheLoop(dest_path, "wb")
        with io.BufferedWriter(raw_file, _AT_ONCE_BYTES) as file:
            self._api.download(
                context,
                image_id,
                data=file,
                dest_path=dest_path,
                trusted_certs=trusted_certs,
            )
            file.flush()
            # An error of the disk would show here.
            threads.run(os.fsync, file.fileno(), long=True)

    def _stream(
        self, context: Any, image_id: str, path: str, trusted_certs: Any
    ) -> None:
        """Put the bytes where they are written into the pool.

        Nova then looks at a file of the same size with only the first bytes,
        which are all that it looks at in an image that is raw or ISO.
        """
        assert self._beside is not None
        incoming = self._beside.begin()
        with open(path, "wb") as first:
            passed_on = _PassedOn(incoming, first)
            self._api.download(
                context, image_id, data=passed_on, trusted_certs=trusted_certs
            )
            passed_on.flush()
            first.truncate(incoming.size_bytes)


class _PassedOn:
    """A file for Nova to write an image into, which is kept nowhere here."""

    def __init__(self, incoming: Incoming, first: BinaryIO) -> None:
        """:param first: gets the first bytes"""
        self._incoming, self._first = incoming, first
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= PIECE_BYTES:
            self._put(PIECE_BYTES)

    def flush(self) -> None:
        if self._held:
            self._put(len(self._held))

    def _put(self, length: int) -> None:
        data = bytes(memoryview(self._held)[:length])
        del self._held[:length]
        if not self._first.tell():
            self._first.write(data)
        threads.run(self._incoming.put, data)

    def truncate(self, _size: int) -> None:
        """Do nothing: Nova does it before it raises an error."""


class _OffTheLoop(io.FileIO):
    """A file whose data is written off the event loop."""

    def write(self, data: Any) -> int:
        return threads.run(super().write, data)


def _convert_image(
    staged: staging.StagedFile,
    source: str,
    dest: str,
    in_format: str,
    out_format: str,
    **others: Any,
) -> None:
    """Take the place of Nova's function of this name in fetch_to_raw."""
    if staged.beside is not None and staged.beside.begun:
        # Nova's inspection refuses it before, and only the first bytes exist.
        raise exception.ImageUnacceptable(
            image_id=source, reason="Image content does not match disk_format"
        )
    if (
        not in_format
        or out_format != "raw"
        or others
        or not _can_convert_into_ceph()
    ):
        images.convert_image(source, dest, in_format, out_format, **others)
        return
    try:
        _put_off(staged, source, dest, in_format)
    except processutils.ProcessExecutionError as error:
        raise exception.ImageUnacceptable(
            image_id=source,
            reason=f"Unable to convert image to {out_format}: {error}",
        ) from error


@functools.cache
def _can_convert_into_ceph() -> bool:
    """Return whether the programs for it are here; if not, log it."""
    missing = None if shutil.which("setpriv") else "setpriv is not installed"
    # It fails in any case, because the name lacks the pool.
    _, said = _qemu_img("info", "rbd:", check_exit_code=False)
    if "Unknown protocol" in said:
        missing = "qemu-img has no rbd driver: install qemu-block-extra"
    if missing:
        _log_nova_converts(missing)
    return missing is None


def _put_off(
    staged: staging.StagedFile, source: str, dest: str, in_format: str
) -> None:
    """Keep the image for later, and make a raw file that Nova can look at.

    Nova removes the image and then looks whether the raw file is raw, because
    a disk may begin like an image in another format. The first bytes show
    that. Nova has just had qemu-img look at the image within its limits of CPU
    and memory, which cost the start of a Python interpreter each time.
    """
    told, _ = _qemu_img("info", "-f", in_format, "--output=json", source)
    size_bytes = int(json.loads(told)["virtual-size"])
    first = ["bs=64k", "count=1", f"if={source}", f"of={dest}"]
    _qemu_img("dd", "-f", in_format, "-O", "raw", *first)
    os.truncate(dest, size_bytes)
    os.link(source, staged.packed_path)
    staged.packed = Packed(in_format, size_bytes)


def _qemu_img(*words: str, **options: Any) -> tuple[str, str]:
    """Return what qemu-img prints; it is killed when it takes too long.

    :raises oslo_concurrency.processutils.ProcessExecutionError: it failed
    """
    # The time-out of execute() would let it run on.
    limited = ("timeout", "--signal=KILL", str(_LOOK_SECONDS), "qemu-img")
    out, said = processutils.execute(*limited, *words, **options)
    return str(out), str(said)
