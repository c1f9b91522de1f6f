# SPDX-License-Identifier: Apache-2.0

"""Translate the exceptions of rados and rbd to this package's errors.

``rados.Error`` and ``rbd.Error`` share no base class, and ENOENT may mean a
pool, an image, a snap or a conf file. So ``translated`` has to be told what
was reached for. Neither module is imported here: the classes are known by
name, so that a host without the modules gets a clear message. A class that a
later release of Ceph adds is translated by its errno.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping

from nova_rbd_backend import errors

_Class = type[errors.StorageError]
_ByKind = Mapping[str, _Class]

# The error for each errno; by the kind of what was reached for, if it matters.
_BY_ERRNO: Mapping[int, _Class | _ByKind] = {
    errno.ENOENT: {
        "conf file": errors.ConfFileNotFound,
        "cluster": errors.KeyringNotFound,
        "pool": errors.PoolNotFound,
        "image": errors.ImageNotFound,
        "snap": errors.SnapNotFound,
        "object": errors.ObjectNotFound,
    },
    errno.EEXIST: {
        "image": errors.ImageExists,
        "snap": errors.SnapExists,
        "": errors.AlreadyExists,
    },
    errno.ETIMEDOUT: {
        "cluster": errors.ClusterUnreachable,
        "": errors.OperationTimedOut,
    },
    errno.EINTR: errors.OperationTimedOut,
    # EBLOCKLISTED is ESHUTDOWN in Ceph (include/rados.h)
    errno.ESHUTDOWN: errors.ConnectionLost,
    errno.ENOTCONN: errors.ConnectionLost,
    errno.EPERM: errors.NotPermitted,
    errno.EACCES: errors.NotPermitted,
    errno.EROFS: errors.ReadOnly,
    errno.EBUSY: errors.DiskBusy,
    errno.ENOTEMPTY: errors.HasSnaps,
    errno.EMLINK: errors.InGroup,
    # librbd's Trash::remove of an image that is not in state NORMAL
    errno.EUCLEAN: errors.MoveUnfinished,
    errno.ENOSPC: errors.NoSpace,
    errno.EDQUOT: errors.NoSpace,
    errno.EOPNOTSUPP: errors.NotSupported,
    errno.ENOSYS: errors.NotSupported,
    errno.ECANCELED: errors.Conflict,
    errno.EINPROGRESS: errors.Conflict,
    # cls_rbd and the omap compare: changed meanwhile
    errno.ESTALE: errors.Conflict,
    # rados_exec: the answer is longer than the caller's buffer
    errno.ERANGE: errors.AnswerTooLong,
    errno.EINVAL: {
        "conf file": errors.ConfFileInvalid,
        "": errors.StorageFault,
    },
    errno.EDOM: errors.StorageFault,
    errno.EIO: errors.StorageFault,
    errno.ENODATA: errors.NotFound,
    errno.EISCONN: errors.StorageFault,
}

_MODULES = ("rados", "rbd")
# Every exception class of rados and rbd (16.2 to 20.2), with the errno that it
# stands for when the exception has none. 0: the caller did something wrong.
_CLASS_ERRNO: Mapping[str, int] = {
    "rados.ConnectionShutdown": errno.ESHUTDOWN,
    "rados.Error": 0,
    "rados.ExtendMismatch": errno.EDOM,
    "rados.IOError": errno.EIO,
    "rados.InProgress": errno.EINPROGRESS,
    "rados.InterruptedOrTimeoutError": errno.EINTR,
    "rados.InvalidArgumentError": errno.EINVAL,
    "rados.IoctxStateError": errno.ENOTCONN,
    "rados.IsConnected": errno.EISCONN,
    "rados.LogicError": 0,
    "rados.NoData": errno.ENODATA,
    "rados.NoSpace": errno.ENOSPC,
    "rados.NotConnected": errno.ENOTCONN,
    "rados.OSError": 0,
    "rados.ObjectBusy": errno.EBUSY,
    "rados.ObjectExists": errno.EEXIST,
    "rados.ObjectNotFound": errno.ENOENT,
    "rados.ObjectStateError": 0,
    "rados.PermissionDeniedError": errno.EACCES,
    "rados.PermissionError": errno.EPERM,
    "rados.RadosStateError": errno.ENOTCONN,
    "rados.TimedOut": errno.ETIMEDOUT,
    "rbd.ArgumentOutOfRange": errno.EDOM,
    "rbd.ConnectionShutdown": errno.ESHUTDOWN,
    "rbd.DiskQuotaExceeded": errno.EDQUOT,
    "rbd.Error": 0,
    "rbd.FunctionNotSupported": errno.ENOSYS,
    "rbd.IOError": errno.EIO,
    "rbd.ImageBusy": errno.EBUSY,
    "rbd.ImageExists": errno.EEXIST,
    "rbd.ImageHasSnapshots": errno.ENOTEMPTY,
    "rbd.ImageMemberOfGroup": errno.EMLINK,
    "rbd.ImageNotFound": errno.ENOENT,
    "rbd.IncompleteWriteError": errno.EIO,
    "rbd.InvalidArgument": errno.EINVAL,
    "rbd.LogicError": 0,
    "rbd.NoSpace": errno.ENOSPC,
    "rbd.OSError": 0,
    "rbd.ObjectExists": errno.EEXIST,
    "rbd.ObjectNotFound": errno.ENOENT,
    "rbd.OperationCanceled": errno.ECANCELED,
    "rbd.OperationNotSupported": errno.EOPNOTSUPP,
    "rbd.PermissionError": errno.EPERM,
    "rbd.ReadOnlyImage": errno.EROFS,
    "rbd.Timeout": errno.ETIMEDOUT,
}


def _class_for(number: int, kind: str) -> _Class:
    found = _BY_ERRNO.get(number, errors.StorageFault)
    if isinstance(found, Mapping):
        return found.get(kind) or found.get("") or errors.StorageFault
    return found


def class_of(text: str) -> _Class:
    """Return the error for what a program says of an image, in English."""
    for number in _BY_ERRNO:
        if os.strerror(number) in text:
            return _class_for(number, "image")
    return errors.StorageFault


def ceph_errno(error: BaseException) -> int | None:
    """Return the errno of an exception of rados or rbd; None: of another."""
    if type(error).__module__ not in _MODULES:
        return None
    number = getattr(error, "errno", None)
    return abs(number) if number else _CLASS_ERRNO.get(_class_name(error), 0)


def _class_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


def _reason(error: BaseException) -> str:
    known = _class_name(error) in _CLASS_ERRNO
    return str(error) if known else f"{_class_name(error)}: {error}"


@contextlib.contextmanager
def translated(
    operation: str,
    *,
    pool: str | None = None,
    image: str | None = None,
    snap: str | None = None,
    kind: str = "",
) -> Iterator[None]:
    """Raise exceptions of rados and rbd as errors of errors.py.

    :param kind: what was reached for, if the names do not tell it
        ("conf file", "object", "mgr")
    :raises StorageError: the subclass that fits; the cause is kept
    """
    try:
        yield
    except Exception as error:
        number = ceph_errno(error)
        if number is None:
            raise
        names = {"snap": snap, "image": image, "pool": pool, "cluster": ""}
        known = [key for key, name in names.items() if name is not None]
        found = _class_for(number, kind or known[0])
        raise found(
            _reason(error),
            operation=operation,
            pool=pool,
            image=image,
            snap=snap,
        ) from error
