# SPDX-License-Identifier: Apache-2.0

"""Which of Nova's tests are run."""

import dataclasses

from tests.testbed import nova_threads


@dataclasses.dataclass(frozen=True)
class Suite:
    """Nova's tests that are run in one way.

    ``since`` has the tests that only newer releases of Nova have, by major
    release. ``processes`` is 1 for tests that wait: they are not run beside
    each other. ``hanging`` has the tests that hang even with Nova's own
    backend, by release and kind of threads.
    """

    package: str
    names: tuple[str, ...]
    since: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    processes: int = 1
    native_since: int = nova_threads.NATIVE_SINCE
    hanging: dict[tuple[int, str], tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )

    def of(self, release: int) -> list[str]:
        """Return the full names of the tests for one release of Nova."""
        names = list(self.names)
        for first, more in self.since.items():
            if release >= first:
                names.extend(more)
        return [f"{self.package}.{name}" for name in names]

    def left_out(self, release: int, threading: str) -> tuple[str, ...]:
        """Return how the full names of tests begin that are not run."""
        names = self.hanging.get((release, threading), ())
        return tuple(f"{self.package}.{name}" for name in names)


SUITES = {
    # Nova's API, conductor, scheduler and two nova-computes; a fake libvirt.
    "functional": Suite(
        "nova.tests.functional",
        ("libvirt.test_evacuate.LibvirtRbdEvacuateTest",),
        {34: ("regressions.test_bug_1741364",)},
        # With Nova 33 its own backend fails as well: the threads of Nova's
        # test share one connection to SQLite ("cannot start a transaction
        # within a transaction").
        native_since=34,
    ),
    # All tests of the libvirt driver and its image backends.
    "unit": Suite(
        "nova.tests.unit",
        (
            "virt.libvirt.test_imagebackend",
            "virt.libvirt.test_driver",
            "virt.libvirt.test_migration",
            "virt.test_virt_drivers",
            "image.test_glance.TestRBDDownload",
            "storage.test_rbd",
        ),
        processes=2,
        hanging={
            # It waits for an event that its fake libvirt does not send.
            (26, "eventlet"): (
                "virt.libvirt.test_driver.LibvirtConnTestCase."
                "test_service_resume_after_broken_connection",
            ),
            # It spawns green threads, which wait for a threading.Event.
            (33, "native"): (
                "virt.libvirt.test_driver.CacheConcurrencyTestCase",
            ),
        },
    ),
}


def threadings(suite, release):
    """Return the kinds of threads to run a suite with, the default first."""
    return nova_threads.kinds(release, SUITES[suite].native_since)
