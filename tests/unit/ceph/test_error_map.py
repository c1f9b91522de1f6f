# SPDX-License-Identifier: Apache-2.0

"""The translation of the errors of rados and rbd is complete."""

import errno
import inspect

import pytest
import rados
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import error_map

# Ceph 20 has these, Ceph 16 does not.
NEWER = {"rbd.ImageMemberOfGroup"}


def _exceptions(module):
    return [
        found
        for found in vars(module).values()
        if inspect.isclass(found)
        and issubclass(found, Exception)
        and found.__module__ == module.__name__
    ]


def _make(found, number):
    if found is rados.ExtendMismatch:
        return found("said so", number, 0)
    try:
        return found("said so", number)
    except TypeError:
        return found("said so")


def _translated(error, **target):
    with (
        pytest.raises(errors.StorageError) as caught,
        error_map.translated("try", **target),
    ):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    "found", _exceptions(rados) + _exceptions(rbd), ids=repr
)
def test_each_class_of_rados_and_rbd_is_mapped(found):
    assert f"{found.__module__}.{found.__name__}" in error_map._CLASS_ERRNO
    for target in ({}, {"pool": "p"}, {"image": "i"}, {"snap": "s"}):
        for number in (None, *error_map._BY_ERRNO):
            _translated(_make(found, number), **target)


class Unseen(Exception):
    """A class that a later release of Ceph may add to librbd."""

    __module__ = "rbd"

    def __init__(self, message, number=None):
        super().__init__(message)
        self.errno = number


@pytest.mark.parametrize("target", [{}, {"pool": "p", "image": "i"}])
def test_class_that_nobody_has_seen_yet(target):
    error = _translated(Unseen("it sprouts"), **target)
    assert type(error) is errors.StorageFault
    assert "rbd.Unseen: it sprouts" in str(error)
    busy = _translated(Unseen("it sprouts", -errno.EBUSY), **target)
    assert type(busy) is errors.DiskBusy
    assert "rbd.Unseen: it sprouts" in str(busy)


def test_class_of_another_module_that_is_named_alike():
    class Other(Exception):
        __module__ = "rbd_support"

    def fail():
        with error_map.translated("try"):
            raise Other

    with pytest.raises(Other):
        fail()


@pytest.mark.parametrize(
    ("number", "expected", "advice"),
    [
        (errno.EROFS, errors.ReadOnly, "rbd lock ls"),
        (errno.EMLINK, errors.InGroup, "rbd group image rm"),
        (errno.ERANGE, errors.AnswerTooLong, "snaps"),
        (errno.ETIMEDOUT, errors.OperationTimedOut, "OSDs"),
    ],
)
def test_advice(number, expected, advice):
    error = _translated(rbd.OSError("no", number), pool="vms", image="i")
    assert type(error) is expected
    assert advice in str(error)


def test_time_out_of_the_manager_is_not_one_of_the_monitors():
    error = _translated(rados.TimedOut("no", errno.ETIMEDOUT), kind="mgr")
    assert type(error) is errors.OperationTimedOut


def test_each_mapped_class_exists():
    known = {
        f"{found.__module__}.{found.__name__}"
        for module in (rados, rbd)
        for found in _exceptions(module)
    }
    assert set(error_map._CLASS_ERRNO) - NEWER == known - NEWER


def test_each_errno_of_a_class_has_a_row():
    rows = set(error_map._CLASS_ERRNO.values()) - {0}
    assert rows <= set(error_map._BY_ERRNO)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"pool": "p"}, errors.PoolNotFound),
        ({"pool": "p", "image": "i"}, errors.ImageNotFound),
        ({"pool": "p", "image": "i", "snap": "s"}, errors.SnapNotFound),
        ({"kind": "conf file"}, errors.ConfFileNotFound),
        ({}, errors.KeyringNotFound),
    ],
)
def test_enoent_becomes_the_not_found_error_of_the_target(target, expected):
    error = rados.ObjectNotFound("gone", errno.ENOENT)
    assert type(_translated(error, **target)) is expected


def test_facts_are_attributes_and_in_the_text():
    error = _translated(
        rbd.ImageBusy("no", errno.EBUSY), pool="vms", image="x", snap="s"
    )
    assert (error.operation, error.pool, error.image, error.snap) == (
        "try",
        "vms",
        "x",
        "s",
    )
    assert "try vms/x@s: " in str(error)
    assert error.advice in str(error)


def test_other_errors_pass_unchanged():
    def fail():
        with error_map.translated("try", pool="p"):
            raise OSError(errno.ENOENT, "a file of ours")

    with pytest.raises(OSError, match="a file of ours"):
        fail()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("error while writing: Connection timed out", "OperationTimedOut"),
        (
            "Cannot send after transport endpoint shutdown",
            "ConnectionLost",
        ),
        ("error opening image x: No such file or directory", "ImageNotFound"),
        ("something else", "StorageFault"),
    ],
)
def test_words_of_a_program(said, expected):
    assert error_map.class_of(f"qemu-img: {said}").__name__ == expected
