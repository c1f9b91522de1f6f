# SPDX-License-Identifier: Apache-2.0

"""What a testbed's virtual environment holds, for each Nova release.

The versions stand in constraints-<Nova's version>.txt beside this file; a
further release of Nova is one more such file.
"""

import os
import pathlib

from tests.testbed.process import TestbedError

NOVA = os.environ.get("NOVA_VERSION", "34.0.0")

REQUIREMENTS = (
    "coverage",
    "glance",
    "gunicorn",
    "hacking",
    "keystone",
    "libvirt-python",
    "lxml-stubs",
    "mypy",
    "nova",
    "openstack-placement",
    "openstacksdk",
    "osc-placement",
    "pymemcache",
    "PyMySQL",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "python-memcached",
    "python-openstackclient",
    "ruff",
    "tenacity",
    "uwsgi",
)

# Debian's own; not on PyPI. Linked in one by one, as --system-site-packages
# would let all of Debian's Python packages in.
CEPH_BINDINGS = ("rados", "rbd")

_FOLDER = pathlib.Path(__file__).parent


def known() -> list[str]:
    """The releases of Nova that have a constraints file, oldest first."""
    names = [
        found.stem.removeprefix("constraints-")
        for found in _FOLDER.glob("constraints-*.txt")
    ]
    return sorted(names, key=lambda name: [int(n) for n in name.split(".")])


def constraints(nova: str) -> pathlib.Path:
    """The pip constraints file of one Nova release.

    :raises TestbedError: there is none for this release
    """
    path = _FOLDER / f"constraints-{nova}.txt"
    if not path.exists():
        raise TestbedError(
            f"no versions are pinned for Nova {nova} (known: "
            f"{', '.join(known())}); add {path.name}"
        )
    return path


def nova_major() -> int:
    """Return the first number of Nova's version."""
    return int(NOVA.split(".")[0])
