# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
