# SPDX-License-Identifier: Apache-2.0

"""The translation of the errors of rados and rbd is complete."""

import errno
import inspect

import pytest
import rados
import rbd

from nova_rbd_backend import errors
from nova_rbd_backend.ceph import error_map


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


def test_each_mapped_class_exists():
    known = {
        f"{found.__module__}.{found.__name__}"
        for module in (rados, rbd)
        for found in _exceptions(module)
    }
    assert set(error_map._CLASS_ERRNO) == known


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
