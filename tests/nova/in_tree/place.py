# SPDX-License-Identifier: Apache-2.0

"""Put this backend where Nova's own tests look for Nova's.

This is for a process that runs only Nova's tests: Nova's modules and ours stay
changed.
"""

import importlib
import os
import sys
import tempfile
import types
import warnings


def put_in_place(nova_tests):
    """Import ``nova_tests``, and make its tests use our classes.

    :param nova_tests: nova.tests.unit or nova.tests.functional; importing it
        chooses between eventlet and threads, from the environment
    """
    importlib.import_module(nova_tests)
    _give_etc()
    _let_warnings_warn()

    import nova.conf

    from nova_rbd_backend import conf
    from nova_rbd_backend.virt import compat

    conf.register(nova.conf.CONF)
    compat.check_nova()
    _replace_driver()
    _replace_backend()


def _replace_driver():
    from nova.virt import libvirt
    from nova.virt.libvirt import driver as nova_driver

    from nova_rbd_backend.virt import driver

    nova, ours = nova_driver.LibvirtDriver, driver.LibvirtDriver
    # mock turns an inherited static method into a bound one (CPython 3.11,
    # unittest/mock.py:get_original), so our class gets Nova's as its own.
    for name, value in vars(nova).items():
        static = isinstance(value, staticmethod | classmethod)
        if static and name not in vars(ours):
            setattr(ours, name, value)
    if "LibvirtDriver" in nova.__init__.__code__.co_names:
        ours = _init_once(ours)
    nova_driver.LibvirtDriver = libvirt.LibvirtDriver = ours


def _init_once(ours):
    """Keep ``super(LibvirtDriver, self)`` of Nova 26 to 32 from recursing.

    The name now stands for our class, so that Nova's __init__ calls itself.
    """
    from nova.virt import driver

    class InitOnce:
        _begun = False

        def __init__(self, virtapi, read_only=False):
            if self._begun:
                driver.ComputeDriver.__init__(self, virtapi)
                return
            self._begun = True
            super().__init__(virtapi, read_only)

    statics = {
        name: value
        for name, value in vars(ours).items()
        if isinstance(value, staticmethod | classmethod)
    }
    return type("LibvirtDriver", (InitOnce, ours), statics)


def _replace_backend():
    from nova.storage import rbd_utils as nova_rbd_utils
    from nova.virt.libvirt import imagebackend as nova_imagebackend

    from nova_rbd_backend.virt import imagebackend, rbd_utils
    from nova_rbd_backend.virt.boot import create_image, precache
    from nova_rbd_backend.virt.snapshot import glance
    from tests.nova.in_tree import no_cluster

    no_cluster.put_in_place()
    nova_imagebackend.Rbd = imagebackend.Rbd
    nova_rbd_utils.RBDDriver = rbd_utils.RBDDriver
    _share(rbd_utils, "RBDDriver", nova_rbd_utils)
    for module in (create_image, glance, precache):
        module.IMAGE_API = _Late(nova_imagebackend, "IMAGE_API")


class _StandIn(types.ModuleType):
    """A module in which one name is looked up in another module.

    Nova's tests patch ``nova.storage.rbd_utils.RBDDriver``; our modules take
    that class from their own rbd_utils, where the patch would not be seen.
    """

    def __init__(self, module, name, other):
        super().__init__(module.__name__)
        self.__dict__["_found"] = (module, name, other)

    def __getattr__(self, name):
        module, moved, other = self._found
        return getattr(other if name == moved else module, name)

    def __setattr__(self, name, value):
        module, moved, other = self._found
        setattr(other if name == moved else module, name, value)


class _Late:
    """A module's attribute, looked up at each use."""

    def __init__(self, module, name):
        self._found = (module, name)

    def __getattr__(self, attribute):
        module, name = self._found
        return getattr(getattr(module, name), attribute)


def _share(module, name, other):
    """Make all our modules find module.name where Nova's tests patch it."""
    stand_in = _StandIn(module, name, other)
    for found in list(sys.modules.values()):
        if not getattr(found, "__name__", "").startswith("nova_rbd_backend"):
            continue
        for attribute, value in list(vars(found).items()):
            if value is module:
                setattr(found, attribute, stand_in)


def _let_warnings_warn():
    """Keep the warnings of a SQLAlchemy that is newer than Nova from failing.

    Nova's tests make them errors (nova/tests/fixtures/nova.py). SQLAlchemy 2.1
    warns of Nova's queries, which have nothing to do with this backend.
    """
    from nova.tests import fixtures
    from sqlalchemy import exc

    strict = fixtures.WarningsFixture.setUp

    def set_up(self):
        strict(self)
        warnings.simplefilter("default", exc.SADeprecationWarning)

    fixtures.WarningsFixture.setUp = set_up


def _give_etc():
    """Let Nova's tests find etc/nova, which its wheel puts elsewhere.

    The tests look beside Nova's package; pip puts the data into sys.prefix.
    """
    from nova.conf import paths

    base = tempfile.mkdtemp(prefix="nova-in-tree-")
    os.symlink(os.path.join(sys.prefix, "etc"), os.path.join(base, "etc"))
    (option,) = (o for o in paths.ALL_OPTS if o.name == "pybasedir")
    option.default = base
