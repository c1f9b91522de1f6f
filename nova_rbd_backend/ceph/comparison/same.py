# SPDX-License-Identifier: Apache-2.0

"""One layout is as librbd has it, or LayoutDiffers says what is different."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nova_rbd_backend import errors

# Others may change what is kept for the whole pool between two readings.
_TRIES = 3


@contextlib.contextmanager
def comparing(layout: str) -> Iterator[None]:
    """Take an error within as a sign that Ceph has another layout.

    :param layout: what is read or written, for the operator
    :raises LayoutDiffers: instead of an error that only this explains
    """
    try:
        yield
    except (
        *errors.UNREACHED,
        errors.LayoutDiffers,
        errors.NoSpace,
        errors.NotPermitted,
    ):
        raise
    except Exception as error:
        why = str(error) or type(error).__name__
        raise differs(layout, why) from error


def differs(layout: str, reason: str) -> errors.LayoutDiffers:
    return errors.LayoutDiffers(f"{layout}: {reason}", operation="compare")


def same(layout: str, ours: Callable[[], Any], librbds: Any) -> None:
    """Compare what we read with what librbd says.

    :raises LayoutDiffers: names the layout and both
    """
    with comparing(layout):
        found = ours()
    if found != librbds:
        raise differs(layout, f"read {found!r}, librbd says {librbds!r}")


def same_soon(
    layout: str, ours: Callable[[], Any], librbds: Callable[[], Any]
) -> None:
    """Compare what others may change between the two readings."""
    for tries in range(1, _TRIES + 1):
        try:
            same(layout, ours, librbds())
        except errors.LayoutDiffers:
            if tries == _TRIES:
                raise
        else:
            return
