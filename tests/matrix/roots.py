# SPDX-License-Identifier: Apache-2.0

"""Other releases of Debian, each in a folder of this machine.

A root is made once with debootstrap, and again when the list of packages has
changed. Its stamp is written last, so that a root that was being made when its
maker died is made again.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from tests.matrix import programs
from tests.testbed import paths
from tests.testbed.process import TestbedError

FOLDER = pathlib.Path(
    os.environ.get("NOVA_RBD_ROOTS", "/var/cache/nova-rbd-roots")
)
#: Suite of Debian by the name that --debian takes.
SUITES = {"12": "bookworm", "13": "trixie", "forky": "forky"}
# Where the checkout and the venvs are inside a root, whichever checkout uses
# the root, because an editable install holds the path of the checkout.
CHECKOUT = "/srv/nova_rbd_backend"
# Where other Debians are inside a root.
INSIDE = pathlib.Path("/srv/debian")
CACHE = "/var/cache/nova-rbd-testbed"
ENTER = pathlib.Path(__file__).with_name("enter.sh")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATES = pathlib.Path("usr/local/share/ca-certificates")
# The testbed's own installation does the rest.
FIRST_PACKAGES = "ca-certificates,iproute2,python3,python3-venv"
# What of apt's settings belongs to the machine's network.
APT_SETTINGS = re.compile(r"Acquire::(http|https|ftp|Check|Retries)\b.*")
DROP_PACKAGES = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };"""
# What of this machine's environment holds inside a root too.
VARIABLES = re.compile(r"(PIP_|NOVA_|OS_NOVA_).*|.*_proxy", re.IGNORECASE)
TESTBED = ("/usr/bin/python3", "-m", "tests.testbed")
INSTALL = [*TESTBED, "install"]
INSTALL_PACKAGES = [*TESTBED, "packages"]
# Downloads packages, which the tests cannot in a root.
BUILD_GUEST = [*TESTBED, "guest"]
PIP_FILES = (
    pathlib.Path("/etc/pip.conf"),
    pathlib.Path("/etc/xdg/pip/pip.conf"),
    pathlib.Path("~/.config/pip/pip.conf").expanduser(),
    pathlib.Path("~/.pip/pip.conf").expanduser(),
)
# A process that is started with this dies with its parent; all that runs in a
# PID namespace dies with the namespace's first process.
NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
    *("--propagation", "private"),
)


def own_release() -> str:
    """Return which of the known Debians this machine is, or ``""``."""
    text = pathlib.Path("/etc/os-release").read_text()
    (suite,) = re.findall(r"^VERSION_CODENAME=(\w+)", text, re.M) or [""]
    names = [name for name, known in SUITES.items() if known == suite]
    return names[0] if names else ""


def folder_of(debian: str) -> pathlib.Path:
    """Return where a Debian is: this machine, or in a root."""
    if debian == own_release():
        return pathlib.Path("/")
    return FOLDER / SUITES[debian]


def ceph_programs(
    folder: str, seen_as: str, roots: Sequence[pathlib.Path]
) -> dict[str, str]:
    """Return the variables that choose the Ceph of new clusters.

    :param folder: where to write scripts that start its programs
    :param seen_as: the folder's path where they are used
    :param roots: of each Debian: clusters begin with the first one's Ceph, and
        one that a test upgrades goes on with the others'
    """
    found = []
    for number, root in enumerate(roots):
        programs.write(pathlib.Path(folder) / f"ceph-{number}", root)
        found.append(f"{seen_as}/ceph-{number}")
    return {
        "NOVA_RBD_CEPH_PROGRAMS": found[0],
        "NOVA_RBD_CEPH_UPGRADES": ":".join(found[1:]),
    }


@dataclasses.dataclass(frozen=True)
class Root:
    """A Debian in a folder; ``debian`` is a key of SUITES."""

    debian: str

    @property
    def folder(self) -> pathlib.Path:
        # Not folder_of(): a root is removed before it is made.
        return FOLDER / SUITES[self.debian]

    @contextlib.contextmanager
    def ready(self, variables: Mapping[str, str] | None) -> Iterator[None]:
        """Make the root if need be, and keep it while the block runs.

        :param variables: what chooses the Nova that is installed in it; None:
            none is, as programs of Ceph are all that is used of it
        :raises subprocess.CalledProcessError: a step failed
        :raises TestbedError: apt does not know a mirror of Debian
        """
        FOLDER.mkdir(parents=True, exist_ok=True)
        with self._lock("root").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not self._is_made():
                # Nobody may use the root while it is made.
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self._is_made():
                    self._make()
                fcntl.flock(lock, fcntl.LOCK_SH)
            with self._lock("install").open("a") as other:
                fcntl.flock(other, fcntl.LOCK_EX)
                if variables is None:
                    self._run(INSTALL_PACKAGES, {})
                else:
                    self._run(INSTALL, variables)
                    self._run(BUILD_GUEST, variables)
            yield

    @contextlib.contextmanager
    def entered(
        self,
        variables: Mapping[str, str],
        network: bool = False,
        clusters: Sequence[str] = (),
    ) -> Iterator[list[str]]:
        """Give the words to put before a command that is to run in the root.

        The command runs in the checkout, with processes, mounts, a host name
        and a ``/tmp`` of its own.

        :param variables: its environment, besides what it needs anyway
        :param network: it shares the machine's network; otherwise it has
            nothing but a loopback of its own
        :param clusters: see :func:`ceph_programs`
        """
        with _temporary_folder() as temporary:
            assigned = {**_fixed_variables(), **variables}
            binds = [*map(str, sorted(_pips_own()))]
            if clusters:
                binds += [
                    f"{folder_of(each)}:{INSIDE / each}" for each in clusters
                ]
                roots = [INSIDE / each for each in clusters]
                assigned |= ceph_programs(temporary, "/tmp", roots)
            yield [
                *NAMESPACES,
                *("--uts", "--ipc", "--cgroup"),
                *([] if network else ["--net"]),
                *("/bin/bash", str(ENTER), str(self.folder)),
                *(SUITES[self.debian], str(paths.CHECKOUT), CHECKOUT),
                *(temporary, _bundle()),
                " ".join(filter(VARIABLES.fullmatch, os.environ)),
                *(*binds, "--", "/usr/bin/env"),
                *(f"{name}={value}" for name, value in assigned.items()),
            ]

    # -- how it is made ----------------------------------------------------

    def _lock(self, name: str) -> pathlib.Path:
        return FOLDER / f"{SUITES[self.debian]}.{name}.lock"

    @property
    def _stamp(self) -> pathlib.Path:
        return FOLDER / f"{SUITES[self.debian]}.made"

    def _is_made(self) -> bool:
        return self._stamp.exists() and self._stamp.read_text() == self._hash()

    def _hash(self) -> str:
        lines = (paths.CHECKOUT / "bindep.txt").read_text().splitlines()
        packages = [line for line in lines if line and line[0] != "#"]
        recipe = [SUITES[self.debian], FIRST_PACKAGES, *packages]
        return hashlib.sha256("\n".join(recipe).encode()).hexdigest()

    def _make(self) -> None:
        say(f"make Debian {self.debian} in {self.folder}")
        wanted = self._hash()
        self._stamp.unlink(missing_ok=True)
        if self.folder.exists():
            _run(["rm", "-rf", "--one-file-system", str(self.folder)])
        if not shutil.which("debootstrap"):
            _run(INSTALL)
        mirror = _mirror()
        _run(
            [
                *NAMESPACES,
                "debootstrap",
                "--variant=minbase",
                f"--keyring={KEYRING}",
                f"--include={FIRST_PACKAGES}",
                SUITES[self.debian],
                str(self.folder),
                mirror,
                # The machine's debootstrap may not know the suite by name.
                "/usr/share/debootstrap/scripts/sid",
            ],
            {**os.environ, **_proxies()},
        )
        self._copy_settings(mirror)
        self._run(["update-ca-certificates"], {})
        self._stamp.write_text(wanted)

    def _copy_settings(self, mirror: str) -> None:
        """Give the root what apt and TLS need on this machine."""
        suite = SUITES[self.debian]
        apt = self.folder / "etc/apt"
        (apt / "sources.list").write_text(f"deb {mirror} {suite} main\n")
        settings = _output("apt-config", "dump").splitlines()
        chosen = [line for line in settings if APT_SETTINGS.match(line)]
        (apt / "apt.conf.d/00machine").write_text(
            "\n".join((*chosen, DROP_PACKAGES)) + "\n"
        )
        # A root that loses power is made again, so that nothing waits for a
        # disk.
        dpkg = self.folder / "etc/dpkg/dpkg.cfg.d/root"
        dpkg.write_text("force-unsafe-io\n")
        shutil.copytree(
            "/" / CERTIFICATES, self.folder / CERTIFICATES, dirs_exist_ok=True
        )

    def _run(self, command: list[str], variables: Mapping[str, str]) -> None:
        with self.entered(variables, network=True) as words:
            _run([*words, *command])


def say(text: str) -> None:
    """Print progress where it does not get into the table."""
    print(f"==> {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Give a folder; remove it, and those of runs that were killed."""
    for left in FOLDER.glob("tmp-*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            _remove_unlocked(left)
    with tempfile.TemporaryDirectory(
        prefix="tmp-", dir=FOLDER, ignore_cleanup_errors=True
    ) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.chmod(folder, 0o1777)
        try:
            yield folder
        finally:
            os.close(descriptor)


def _remove_unlocked(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _fixed_variables() -> dict[str, str]:
    """Return what a command in a root gets instead of the machine's."""
    bundle = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    return {
        **dict.fromkeys(bundle, "/run/ca.crt"),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "NOVA_RBD_TESTBED_CACHE": CACHE,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": os.environ.get("TERM", "dumb"),
    }


def _bundle() -> str:
    """Return the file with the certificates that this machine trusts."""
    named = (os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"))
    return next(filter(None, named), BUNDLE)


def _pips_own() -> set[pathlib.Path]:
    """Return pip's settings of this machine, and what they name.

    The certificates are left out: a root gets them in another place, because
    its own packages write to theirs.
    """
    files = [path for path in PIP_FILES if path.exists()]
    texts = [path.read_text() for path in files]
    texts += [v for k, v in os.environ.items() if k.startswith("PIP_")]
    words = re.split(r"[\s=]+", " ".join(texts))
    named = {
        # An index names files that are beside it.
        pathlib.Path(word.removeprefix("file://")).parent
        if word.startswith("file://")
        else pathlib.Path(word)
        for word in words
        if word.startswith(("/", "file:///"))
    }
    named -= {pathlib.Path(BUNDLE), pathlib.Path(_bundle())}
    return {path for path in named if path.exists()} | set(files)


def _mirror() -> str:
    """Return the address of the mirror that apt is set up with."""
    own = own_release()
    wanted = f"Codename: {SUITES.get(own, '')}"
    found = _output(
        "apt-get", "indextargets", "--format", "$(REPO_URI)", wanted
    )
    if not found:
        raise TestbedError("apt has no mirror of Debian: run apt-get update")
    return found.splitlines()[0]


def _proxies() -> dict[str, str]:
    """Return apt's proxy as the variable that debootstrap reads."""
    assigned = _output("apt-config", "shell", "P", "Acquire::http::Proxy")
    found = re.match(r"P='(.+)'", assigned)
    return {"http_proxy": found[1]} if found else {}


def _output(*command: str) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


def _run(command: list[str], env: Mapping[str, str] | None = None) -> None:
    # Its output is progress.
    subprocess.run(
        command, cwd=paths.CHECKOUT, env=env, stdout=sys.stderr, check=True
    )
