# SPDX-License-Identifier: Apache-2.0

"""What suites run on: a Debian, the Ceph of its clusters, and a Nova."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from tests.matrix.roots import (
    INSTALL,
    Root,
    ceph_programs,
    folder_of,
    own_release,
)
from tests.testbed import paths

# Prints the releases of what the tests run on.
ASK = r"""
ceph --version
qemu-system-x86_64 --version | head -1
libvirtd --version
/usr/bin/python3 --version
clusters=${NOVA_RBD_CEPH_PROGRAMS:-/usr/bin}:${NOVA_RBD_CEPH_UPGRADES:-}
echo "$clusters" | tr : "\n" | grep . | while read -r folder; do
    "$folder/ceph-mon" --version
done
"""


@dataclasses.dataclass(frozen=True)
class Combination:
    """A Debian to run in, with a Nova and its kind of threads.

    ``clusters`` are the Debians whose Ceph the clusters have, one after the
    other; none for this one's.
    """

    debian: str
    clusters: tuple[str, ...]
    nova: str
    threads: str

    @property
    def variables(self) -> dict[str, str]:
        return {"NOVA_VERSION": self.nova, "NOVA_THREADS": self.threads}

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Install what is missing, and keep it while the block runs."""
        with contextlib.ExitStack() as stack:
            for debian in {self.debian, *self.clusters} - {own_release()}:
                # Only programs of Ceph are started in the others.
                variables = self.variables if debian == self.debian else None
                stack.enter_context(Root(debian).ready(variables))
            if self.debian == own_release():
                self.run(INSTALL)
            yield

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command; return its exit code and what it has printed.

        That is also shown as it comes.
        """
        with self._entered() as words:
            child = subprocess.Popen(
                [*words, *command],
                cwd=paths.CHECKOUT,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout
            printed = []
            for line in child.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                printed.append(line)
            return child.wait(), "".join(printed)

    def releases(self) -> list[str]:
        """Return the releases of Ceph, its cluster, QEMU, libvirt, Python."""
        with self._entered() as words:
            told = subprocess.run(
                [*words, "/bin/sh", "-c", ASK],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        lines = (re.search(r"\d+\.\d+\.\d+", x) for x in told.splitlines())
        client, qemu, libvirt, python, *clusters = (m[0] for m in lines if m)
        # Of a cluster that is upgraded, the first one and the last one.
        cluster = "-".join(dict.fromkeys((clusters[0], clusters[-1])))
        return [client, cluster, qemu, libvirt, python]

    @contextlib.contextmanager
    def _entered(self) -> Iterator[list[str]]:
        if self.debian != own_release():
            root = Root(self.debian)
            with root.entered(self.variables, clusters=self.clusters) as words:
                yield words
            return
        variables = self.variables
        with tempfile.TemporaryDirectory(prefix="ceph-programs-") as folder:
            if self.clusters:
                roots = [folder_of(each) for each in self.clusters]
                variables |= ceph_programs(folder, folder, roots)
            pairs = (f"{name}={value}" for name, value in variables.items())
            yield ["/usr/bin/env", *pairs]
