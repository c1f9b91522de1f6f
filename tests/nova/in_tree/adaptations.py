# SPDX-License-Identifier: Apache-2.0

"""What some of Nova's test classes need in addition to their own setUp."""

import time

WAIT_SECONDS = 60


def _images_type_rbd(test):
    # Nova's Rbd works whatever images_type is; ours reads nova.conf.
    test.flags(images_type="rbd", group="libvirt")


def _rbd_user(test):
    # Nova's Rbd takes the user from a mock. Ours reads nova.conf, in which
    # these tests set only a secret.
    test.flags(rbd_user="rbd", group="libvirt")


_ADAPTATIONS = {
    "nova.tests.unit.virt.libvirt.test_imagebackend.RbdTestCase": (
        _images_type_rbd
    ),
    "nova.tests.functional.libvirt.test_evacuate.LibvirtRbdEvacuateTest": (
        _rbd_user
    ),
    "nova.tests.functional.regressions.test_bug_1741364."
    "TestLiveMigrationRbdMonAddrsNotRefreshed": _rbd_user,
}


def adapt(tests):
    """Adapt the classes of these tests."""
    for test_class in {type(test) for test in tests}:
        name = f"{test_class.__module__}.{test_class.__qualname__}"
        if name in _ADAPTATIONS:
            _extend_set_up(test_class, _ADAPTATIONS[name])
        if hasattr(test_class, "_wait_for_migration_status"):
            _be_patient(test_class)


def _extend_set_up(test_class, more):
    set_up = test_class.setUp

    def both(self):
        set_up(self)
        more(self)

    test_class.setUp = both


def _be_patient(test_class):
    """Wait for a migration as long as a busy machine needs.

    Nova gives it 5 s (nova/tests/functional/integrated_helpers.py).
    """
    wait = test_class._wait_for_migration_status

    def wait_longer(self, *args):
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return wait(self, *args)
            except AssertionError:
                if time.monotonic() > end:
                    raise

    test_class._wait_for_migration_status = wait_longer
