# SPDX-License-Identifier: Apache-2.0

"""Tempest's compute tests against two compute hosts with this backend.

Usage: python -m tests.testbed.tempest [REGEX] [--cannot-run] [--workers N]
"""

import argparse
import dataclasses
import os
import pathlib
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from openstack.image.v2.image import Image

from tests.testbed import conf_file, install, paths
from tests.testbed.ceph import rbd_view
from tests.testbed.guest import building as guest
from tests.testbed.process import TestbedError, wait_for
from tests.testbed.steps import Steps
from tests.testbed.tempest import tempest_conf
from tests.testbed.tempest.tempest_run import Result, Tempest
from tests.testbed.whole import Testbed

NAME = "tempest"
HOSTS = 2
REGEX = r"^tempest\.api\.compute\."
CANNOT_RUN = pathlib.Path(__file__).with_name("cannot_run.txt")
PURGE_SECONDS = 90


@dataclasses.dataclass
class Reason:
    """Why some tests can't run here, and regexes that find their names."""

    text: str
    patterns: list[str] = dataclasses.field(default_factory=list)

    def tests(self, names: Iterable[str]) -> list[str]:
        """The names that its regexes find."""
        found = re.compile("|".join(self.patterns))
        return [name for name in names if found.search(name)]


def reasons() -> list[Reason]:
    """Read cannot_run.txt, in which "## " begins a reason."""
    found: list[Reason] = []
    for line in CANNOT_RUN.read_text().splitlines():
        if line.startswith("## "):
            found.append(Reason(line.removeprefix("## ")))
        elif line and not line.startswith("#"):
            found[-1].patterns.append(line)
    return found


class Run:
    """One run of Tempest on a testbed that is up."""

    def __init__(self, testbed: Testbed, steps: Steps):
        self._testbed = testbed
        self._steps = steps
        self._folder = testbed.folder / "tempest"
        self._tempest = Tempest(install.tempest_venv(), self._folder)
        # In the cache, because the log must outlive the testbed.
        self.log = paths.cache() / "tempest.log"
        self.results: list[Result] = []
        self.excluded: dict[str, list[str]] = {}
        self.complaints: list[str] = []

    def prepare(self) -> None:
        """Give Tempest images, flavors and its configuration."""
        with self._steps.step("upload images, make flavors, configure"):
            disk = guest.build()
            servers = self._testbed.servers()
            small = servers.flavor("tempest", disk_gib=1)
            large = servers.flavor("tempest-large", disk_gib=2, ram_mib=192)
            # The raw image is cloned, and the qcow2 image is imported.
            raw = self._image("guest-raw", disk.raw, "raw", "rbd")
            qcow2 = self._image("guest-qcow2", disk.qcow2, "qcow2", "file")
            conf_file.write(
                self._folder / "tempest.conf",
                tempest_conf.tempest_conf(
                    self._testbed.openstack.site,
                    len(self._testbed.hosts),
                    (raw.id, qcow2.id),
                    (small.id, large.id),
                ),
            )

    def run(self, regex: str, workers: int) -> None:
        """Run the tests that the regex selects and that can run here."""
        matched = self._tempest.tests(f"--regex={regex}")
        known = reasons()
        counted: set[str] = set()
        for reason in known:
            names = set(reason.tests(matched)) - counted
            self.excluded[reason.text] = sorted(names)
            counted |= names
        if regex == REGEX:
            self._refuse_stale(known, matched)
        without = f"--exclude-list={CANNOT_RUN}"
        chosen = self._tempest.tests(f"--regex={regex}", without)
        if not chosen:
            raise TestbedError(f"no test matches {regex!r} and can run here")
        before = self._left()
        with self._steps.step(f"run {len(chosen)} tests, log {self.log}"):
            self.results = self._tempest.run(
                self.log, workers, f"--regex={regex}", without
            )
        self._look_for_disks(before)

    def run_excluded(self, workers: int) -> None:
        """Run the tests that can't run here; complain of each that passes."""
        matched = self._tempest.tests(f"--regex={REGEX}")
        cannot = {name for why in reasons() for name in why.tests(matched)}
        # The regexes alone would find tests of other services too.
        only = self._folder / "cannot_run.txt"
        only.write_text(
            "".join(f"^{re.escape(name)}\\b\n" for name in sorted(cannot))
        )
        with self._steps.step(f"run {len(cannot)} tests, log {self.log}"):
            self.results = self._tempest.run(
                self.log, workers, f"--include-list={only}"
            )
        self.complaints += [
            f"can run here: {result.name}"
            for result in self.results
            if result.outcome == "ok"
        ]

    def _image(
        self, name: str, path: pathlib.Path, disk_format: str, store: str
    ) -> Image:
        """Return the image of this name; upload it if there is none."""
        glance = self._testbed.openstack.connection().image
        found = next(glance.images(name=name), None)
        return found or self._testbed.servers().upload(
            name, path, disk_format, store
        )

    def _refuse_stale(
        self, known: Sequence[Reason], names: Sequence[str]
    ) -> None:
        for reason in known:
            for pattern in reason.patterns:
                if not Reason("", [pattern]).tests(names):
                    raise TestbedError(
                        f"{CANNOT_RUN}: this Tempest has no test {pattern}"
                    )

    def _left(self) -> set[str]:
        """Disks and snapshots in Nova's pools, and in their trash."""
        return {
            f"left in pool {pool}: {image}"
            for pool in ("vms", "snapshots")
            for image in rbd_view.left(self._testbed.cluster, pool)
        }

    def _look_for_disks(self, before: set[str]) -> None:
        """Complain of disks and snapshots that the tests have left behind."""
        with self._steps.step("wait until Nova's pools are as before"):
            try:
                wait_for(
                    "pools vms and snapshots have nothing new",
                    lambda: self._left() <= before,
                    PURGE_SECONDS,
                    interval_seconds=1,
                )
            except TestbedError:
                self.complaints += sorted(self._left() - before)


def report(run: Run, steps: Steps) -> bool:
    """Print failures, skipped tests and sums; whether none complained."""
    failed = [x for x in run.results if x.outcome == "FAILED"]
    skipped = [x for x in run.results if x.outcome == "SKIPPED"]
    for result in failed:
        print(f"\nFAILED: {result.name}")
        print("\n".join(f"    {line}" for line in result.last_lines()))
    if skipped:
        print("\nSkipped by Tempest:")
    for result in skipped:
        print(f"  {result.short}: {result.reason}"[:200])
    if any(run.excluded.values()):
        print(f"\nCan't run here ({CANNOT_RUN.relative_to(paths.CHECKOUT)}):")
    for text, names in run.excluded.items():
        if names:
            print(f"  {len(names):3} {text}")
    if run.complaints:
        print("\n" + "\n".join(run.complaints))
    count = Counter(result.outcome for result in run.results)
    excluded = sum(len(names) for names in run.excluded.values())
    print(
        f"\n{count['SKIPPED']} skipped, {excluded} left out, in all "
        f"{steps.seconds() / 60:.1f} minutes; log {run.log}\n"
        f"{count['ok']} passed, {len(failed)} failed"
    )
    return not run.complaints


def main(arguments: list[str]) -> int:
    """Bring the testbed up, run Tempest, report; return 0 if all is well."""
    wanted = _parser().parse_args(arguments)
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep = os.environ.get("NOVA_RBD_TESTBED_KEEP") == "1"
    steps = Steps()
    testbed = Testbed(NAME, hosts=HOSTS)
    run = Run(testbed, steps)
    try:
        install.install_tempest(steps)
        if not keep:
            testbed.down()
        testbed.up(steps)
        run.prepare()
        if wanted.cannot_run:
            run.run_excluded(wanted.workers)
        else:
            run.run(wanted.regex, wanted.workers)
    except TestbedError as error:
        run.complaints.append(f"error: {error}")
    finally:
        if not keep:
            with steps.step("end everything"):
                testbed.down()
    well = report(run, steps)
    failed = any(result.outcome == "FAILED" for result in run.results)
    return 0 if well and (wanted.cannot_run or not failed) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/tempest.sh",
        description="Run Tempest's compute tests on a throwaway Ceph, two "
        "compute hosts and an OpenStack. With NOVA_RBD_TESTBED_KEEP=1 it uses "
        "a testbed that is up, and leaves it up.",
    )
    parser.add_argument(
        "regex",
        nargs="?",
        default=REGEX,
        help="which tests, by their names (%(default)s)",
    )
    parser.add_argument(
        "--cannot-run",
        action="store_true",
        help=f"run the tests in {CANNOT_RUN.name} instead, to see that each "
        "fails or is skipped",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="tests at once (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
