# SPDX-License-Identifier: Apache-2.0

"""Install what a testbed needs: Debian's packages, then a venv for one Nova.

Runs on a bare Debian with the standard library only. Each part leaves a
stamp holding the hash of its inputs, so that a second run only compares.
"""

import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.testbed import paths, versions
from tests.testbed.process import TestbedError
from tests.testbed.steps import Steps

# Debian's interpreter, because rados and rbd are built for it. The first
# `python3` in PATH may be another interpreter.
PYTHON = "/usr/bin/python3"
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# nova-rbd testbed: install only\nexit 101\n"
NEEDED_BYTES = 8 << 30
REPORT_SECONDS = 5
TEMPEST_VERSIONS = (
    paths.CHECKOUT / "tests/testbed/tempest/tempest-constraints.txt"
)
NOVA_TESTS = paths.CHECKOUT / "tests/nova/requirements.txt"
# The files that an editable install reads. It leaves the code where it is.
PROJECT_FILES = ("requirements.txt", "setup.cfg", "setup.py", "pyproject.toml")


def venv(nova: str = versions.NOVA) -> pathlib.Path:
    """Where the virtual environment for one Nova release is, or would be."""
    return paths.cache() / f"venv-nova-{nova}"


def install(nova: str = versions.NOVA, steps: Steps | None = None) -> None:
    """Install what is missing. Takes about a second if nothing is.

    :raises TestbedError: not root, not Debian, no disk space; a command failed
    """
    _install_missing(
        (
            _packages(),
            _Part(
                f"Nova {nova} and OpenStack, into a venv",
                f"venv-nova-{nova}",
                (
                    versions.constraints(nova),
                    NOVA_TESTS,
                    pathlib.Path(versions.__file__),
                ),
                install_venv,
            ),
            _Part(
                "this project, editable",
                f"project-nova-{nova}",
                tuple(paths.CHECKOUT / name for name in PROJECT_FILES),
                install_project,
            ),
        ),
        nova,
        steps or Steps(),
    )


def install_packages_alone() -> None:
    """Install what Debian has of it, for example the programs of Ceph.

    :raises TestbedError: as :func:`install`
    """
    _install_missing((_packages(),), versions.NOVA, Steps())


def _packages() -> "_Part":
    return _Part(
        "Debian packages (bindep.txt)",
        "packages",
        (paths.CHECKOUT / "bindep.txt",),
        install_packages,
    )


def tempest_venv() -> pathlib.Path:
    """Where Tempest's virtual environment is, or would be."""
    return paths.cache() / "venv-tempest"


def install_tempest(steps: Steps | None = None) -> None:
    """Install Tempest if it is missing; one serves all releases of Nova.

    :raises TestbedError: as :func:`install`
    """
    part = _Part(
        "Tempest, into a venv of its own",
        "venv-tempest",
        (TEMPEST_VERSIONS,),
        lambda _: _make_venv(tempest_venv(), TEMPEST_VERSIONS, ("tempest",)),
    )
    _install_missing((part,), versions.NOVA, steps or Steps())


def _install_missing(
    parts: Sequence["_Part"], nova: str, steps: Steps
) -> None:
    for part in parts:
        if part.is_done():
            continue
        check_machine()
        paths.cache().mkdir(parents=True, exist_ok=True)
        with steps.step(f"install {part.what}"):
            part.work(nova)
            part.remember()


def check_machine() -> None:
    """Refuse a machine the testbed can't be installed on.

    :raises TestbedError: says what is missing
    """
    if os.geteuid() != 0:
        raise TestbedError(
            "must run as root: it installs packages and makes mount namespaces"
        )
    if not pathlib.Path("/etc/debian_version").exists():
        raise TestbedError(
            "this is not Debian: the testbed installs its "
            "parts with apt-get (Debian 12 is tested, 13 and forky in part)"
        )
    for folder in (paths.cache(), paths.STATE.parent):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < NEEDED_BYTES:
            raise TestbedError(
                f"{existing} has {free >> 20} MiB free, the testbed needs "
                f"{NEEDED_BYTES >> 20} MiB"
            )


def install_packages(nova: str) -> None:
    """Install what bindep.txt lists and this machine lacks; start nothing."""
    tools = paths.cache() / "venv-tools"
    bindep = tools / "bin/bindep"
    if not bindep.exists():
        shutil.rmtree(tools, ignore_errors=True)
        _run([PYTHON, "-m", "venv", str(tools)])
        _run(
            [
                str(tools / "bin/pip"),
                "install",
                "-c",
                str(versions.constraints(nova)),
                "bindep",
            ]
        )
    missing = _missing(bindep)
    if missing:
        print(
            f"    {len(missing)} to install: {' '.join(missing)}", flush=True
        )
        with no_service_starts():
            _apt("update")
            _apt("install", "--no-install-recommends", *missing)
    if still := _missing(bindep):
        raise TestbedError(f"apt-get did not install: {' '.join(still)}")


def install_venv(nova: str) -> None:
    """Make the venv, or bring an older or half-made one up to date."""
    folder = venv(nova)
    wanted = (*versions.REQUIREMENTS, "-r", str(NOVA_TESTS), f"nova=={nova}")
    _make_venv(folder, versions.constraints(nova), wanted)
    _link_ceph_bindings(folder)


def _make_venv(
    folder: pathlib.Path, constraints: pathlib.Path, wanted: Sequence[str]
) -> None:
    pip = [str(folder / "bin/python"), "-m", "pip"]
    if not _works([*pip, "--version"]):
        shutil.rmtree(folder, ignore_errors=True)
        _run([PYTHON, "-m", "venv", str(folder)])
    limits = ["-c", str(constraints)]
    _run([*pip, "install", *limits, "pip", "setuptools", "wheel"])
    _run(
        [
            *pip,
            "install",
            "--progress-bar",
            "off",
            *limits,
            *wanted,
        ]
    )


def install_project(nova: str) -> None:
    """Install this checkout as editable; needed when its metadata changed."""
    python = str(venv(nova) / "bin/python")
    # The version of an editable install does not matter, and pbr would need a
    # git checkout to find it.
    _run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-c",
            str(versions.constraints(nova)),
            "--editable",
            str(paths.CHECKOUT),
        ],
        env={
            "PBR_VERSION": "0.0.1.dev1",
            "SKIP_WRITE_GIT_CHANGELOG": "1",
            "SKIP_GENERATE_AUTHORS": "1",
        },
    )
    _run(
        [
            python,
            "-c",
            "import importlib.util, rados, rbd, nova.virt; "
            "assert importlib.util.find_spec('nova.virt.rbd_backend')",
        ]
    )


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep package scripts from starting daemons (Debian: policy-rc.d).

    A policy that is not ours is left alone. Ours is removed even if it was
    left by a run that crashed.
    """
    if not POLICY.exists():
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if POLICY.read_text() == POLICY_TEXT:
            POLICY.unlink()


@dataclasses.dataclass(frozen=True)
class _Part:
    """Something to install; a stamp records the inputs it was made from."""

    what: str
    name: str
    inputs: Sequence[pathlib.Path]
    work: Callable[[str], None]

    def is_done(self) -> bool:
        return self._stamp.exists() and self._stamp.read_text() == self._hash()

    def remember(self) -> None:
        self._stamp.write_text(self._hash())

    @property
    def _stamp(self) -> pathlib.Path:
        return paths.cache() / f"{self.name}.stamp"

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for path in self.inputs:
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def _missing(bindep: pathlib.Path) -> list[str]:
    """Names of the packages this machine lacks."""
    found = subprocess.run(
        [
            str(bindep),
            "--brief",
            "--file",
            str(paths.CHECKOUT / "bindep.txt"),
            "testbed",
        ],
        capture_output=True,
        text=True,
    )
    if found.returncode not in (0, 1) or found.stderr:
        raise TestbedError(f"bindep: {found.stdout}{found.stderr}")
    return found.stdout.split()


def _works(command: Sequence[str]) -> bool:
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except FileNotFoundError:
        return False


def _link_ceph_bindings(folder: pathlib.Path) -> None:
    site = sysconfig.get_path(
        "purelib",
        vars={"base": str(folder), "platbase": str(folder)},
        scheme="venv",
    )
    for name in versions.CEPH_BINDINGS:
        found = glob.glob(f"/usr/lib/python3/dist-packages/{name}.*.so")
        if not found:
            raise TestbedError(f"python3-{name} is not installed")
        link = pathlib.Path(site) / pathlib.Path(found[0]).name
        link.unlink(missing_ok=True)
        link.symlink_to(found[0])


def _apt(*words: str) -> None:
    # Wait up to ten minutes for another apt-get on this machine.
    _run(
        [
            "apt-get",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=600",
            "-o",
            "Dpkg::Use-Pty=0",
            *words,
        ],
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Run a command, log its output, and show its progress now and then."""
    print(f"    $ {' '.join(command)}"[:150], flush=True)
    log = paths.cache() / "install.log"
    with log.open("ab") as out:
        begin = out.tell()
        child = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    while _running(child):
        if lines := _output(log, begin).split("\n"):
            print(f"      {lines[-1].strip()[:100]}", flush=True)
    if child.returncode:
        print(_output(log, begin)[-3000:], flush=True)
        raise TestbedError(
            f"{' '.join(command)[:200]}: exit code {child.returncode} (output "
            f"above and in {log}); correct the cause and run the same command "
            "again, which goes on from here"
        )


def _running(child: "subprocess.Popen[bytes]") -> bool:
    try:
        child.wait(REPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _output(log: pathlib.Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace").strip()
