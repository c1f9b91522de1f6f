# SPDX-License-Identifier: Apache-2.0

"""The one border where our errors become Nova's.

Everything that Nova calls goes through :func:`as_nova`, so that the compute
manager sees the exceptions it knows how to handle and the user sees a fault
that names the pool and the image.
"""

import contextlib
from collections.abc import Iterator

from nova import exception

from nova_rbd_backend import errors


def _storage(error: errors.Error) -> exception.NovaException:
    return exception.StorageError(reason=str(error))


def _disk_not_found(error: errors.Error) -> exception.NovaException:
    return exception.DiskNotFound(location=str(error))


def _snap_not_found(error: errors.Error) -> exception.NovaException:
    return exception.SnapshotNotFound(snapshot_id=str(error))


def _unacceptable(error: errors.Error) -> exception.NovaException:
    return exception.ImageUnacceptable(
        image_id=getattr(error, "target", "") or "?", reason=str(error)
    )


def _configuration(error: errors.Error) -> exception.NovaException:
    return exception.InvalidConfiguration(str(error))


#: Looked up along the error's bases, so that one row serves a whole branch.
NOVA_FAULTS = {
    errors.ConfigError: _configuration,
    errors.InvalidLocation: _unacceptable,
    errors.ImageNotFound: _disk_not_found,
    errors.SnapNotFound: _snap_not_found,
    errors.Error: _storage,
}


def translate(error: errors.Error) -> exception.NovaException:
    """Nova's exception for one of ours."""
    bases = type(error).__mro__
    return next(NOVA_FAULTS[b] for b in bases if b in NOVA_FAULTS)(error)


@contextlib.contextmanager
def as_nova() -> Iterator[None]:
    """Raise Nova's exception in place of ours; let all others pass."""
    try:
        yield
    except errors.Error as error:
        raise translate(error) from error
