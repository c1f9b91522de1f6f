# SPDX-License-Identifier: Apache-2.0

"""A throwaway Ceph cluster in one folder: mon, mgr, BlueStore OSDs, cephx.

Nothing of the machine's own Ceph (/etc/ceph, /var/lib/ceph, ...) is read or
written; any number of clusters run side by side.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator

import psutil
import rados

from tests.testbed import ports
from tests.testbed.ceph import ceph_ports, pools
from tests.testbed.ceph import users as users_
from tests.testbed.ceph.ceph_conf import MIB, ClusterSettings, render
from tests.testbed.process import (
    Process,
    TestbedError,
    reaped,
    rss_bytes,
    start_time,
    wait_for,
)

DAEMONS = ("ceph-mon", "ceph-mgr", "ceph-osd")
PROGRAMS = (*DAEMONS, "monmaptool", "ceph-authtool")
# Names a folder with the programs of another release of Ceph for new clusters.
OTHER_PROGRAMS = "NOVA_RBD_CEPH_PROGRAMS"
RELEASES = {16: "pacific", 18: "reef", 20: "tentacle"}
# <sockets>/client.<name>.<pid>.<number>.asok must stay within 107 bytes.
LONGEST_SOCKET_FOLDER = 70


class CephCluster:
    """A cluster in ``folder``; other arguments apply to its first start.

    :param osds: with 3 or more there is the erasure-coded pool vms-data too
    :param watch_timeout_seconds: time after which a dead client's lock lapses
    """

    def __init__(
        self,
        folder: pathlib.Path,
        address: str = "127.0.0.1",
        osds: int = 3,
        msgr2_only: bool = False,
        watch_timeout_seconds: int = 30,
        replicas: int = 1,
    ):
        self.folder = pathlib.Path(folder).absolute()
        #: The folder of Ceph's programs; "" for those in PATH. What is
        #: started from now on is of this release.
        self.programs = os.environ.get(OTHER_PROGRAMS, "")
        self._wanted = {
            "address": address,
            "osds": osds,
            "replicas": replicas,
            "msgr2_only": msgr2_only,
            "watch_timeout_seconds": watch_timeout_seconds,
        }

    # -- what users of the cluster need ------------------------------------

    @property
    def conf(self) -> pathlib.Path:
        return self.folder / "ceph.conf"

    @property
    def fsid(self) -> str:
        return self.settings.fsid

    @property
    def settings(self) -> ClusterSettings:
        """:raises TestbedError: never started in this folder"""
        try:
            text = self._record.read_text()
        except FileNotFoundError:
            raise TestbedError(
                f"no cluster in {self.folder}: start it first"
            ) from None
        return ClusterSettings(**json.loads(text))

    @property
    def release(self) -> int:
        """The major release that its monitor runs, which may not be ours."""
        with self.admin() as admin:
            versions = pools.command(admin, "mon versions")
        return release_of(*versions)

    @property
    def takes_tasks(self) -> bool:
        """Whether its manager has rbd_support, which flattens images.

        Debian 13's manager can't load it (PyO3 in a subinterpreter).
        """
        request = json.dumps({"prefix": "rbd task list"})
        with self.admin() as admin:
            return admin.mgr_command(request, b"")[0] == 0

    def keyring(self, user: str) -> pathlib.Path:
        """Return the keyring file of client.<user>, which holds its key."""
        return self.folder / f"ceph.client.{user}.keyring"

    def key(self, user: str) -> str:
        """Return the base64 key of client.<user>; a secret: do not log it."""
        return users_.read_key(self.keyring(user))

    def socket(self, daemon: str) -> pathlib.Path:
        """Return the admin socket of a daemon ("osd.0")."""
        return self._sockets / f"{daemon}.asok"

    def admin(self) -> contextlib.AbstractContextManager[rados.Rados]:
        """Give a connection as client.admin; all its calls have a limit."""
        return self.client("admin")

    @contextlib.contextmanager
    def client(self, user: str) -> Iterator[rados.Rados]:
        """Give a connection as client.<user>; all its calls have a limit."""
        limits = {"rados_mon_op_timeout": "30", "rados_osd_op_timeout": "60"}
        cluster = rados.Rados(
            name=f"client.{user}", conffile=str(self.conf), conf=limits
        )
        try:
            cluster.connect(timeout=30)
            yield cluster
        finally:
            cluster.shutdown()

    def status(self) -> list[tuple[str, str, str]]:
        """Return a row for each daemon: name, pid or "-", RSS in MiB."""
        pids = [(p.name, p.pid()) for p in self._daemons()]
        return [
            (name, str(pid or "-"), str(rss_bytes(pid) // MIB))
            for name, pid in pids
        ]

    # -- its life ----------------------------------------------------------

    def start(self) -> None:
        """Make it, or start its daemons that do not run; usable on return.

        If an earlier start was interrupted, first removes what that has left.
        """
        if not self._complete.exists():
            self.destroy()
            self._make()
            return
        self.resume_osds()
        if any(p.pid() is None for p in self._daemons()):
            self._start_again()

    def stop(self) -> None:
        """Stop the daemons that run, cleanly; the data stays."""
        self.resume_osds()
        # The monitor is last, because OSDs tell it that they stop.
        for daemon in reversed(self._daemons()):
            daemon.stop()

    def kill(self, *names: str) -> None:
        """SIGKILL the named daemons ("osd.0"), or all of them."""
        for daemon in self._chosen(names):
            daemon.signal(signal.SIGKILL)
        for daemon in self._chosen(names):
            daemon.stop()

    def stop_daemons(self, *names: str) -> None:
        """Stop the named daemons ("mon.a") cleanly; start() revives them."""
        for daemon in self._chosen(names):
            daemon.signal(signal.SIGCONT)
            daemon.stop()

    def upgrade(self, programs: str) -> None:
        """Go on with another release of Ceph, daemon by daemon, in its order.

        :param programs: the folder of its programs
        """
        self.programs = programs
        for kind in ("mon", "mgr", "osd"):
            for daemon in self._chosen((kind,)):
                self.stop_daemons(daemon.name)
                self.start()
        with self.admin() as admin:
            name = RELEASES[self.release]
            pools.command(admin, "osd require-osd-release", release=name)

    def pause_osds(self, *names: str) -> None:
        """Freeze OSDs, by default all: requests hang until resume_osds()."""
        for daemon in self._chosen(names or ("osd",)):
            daemon.freeze()

    def resume_osds(self) -> None:
        for daemon in self._chosen(("osd",)):
            daemon.signal(signal.SIGCONT)

    def destroy(self) -> None:
        """End all processes and remove the folder, if it exists.

        :raises TestbedError: the folder holds something else
        """
        if not self.folder.exists():
            return
        if any(self.folder.iterdir()) and not self._record.exists():
            raise TestbedError(
                f"{self.folder} is no cluster's folder: remove it yourself"
            )
        # Find the daemons by their command lines, because a start that was
        # killed had no time to record what it had just launched.
        daemons = [p for p in psutil.process_iter() if self._is_daemon(p)]
        for daemon in daemons:
            with contextlib.suppress(psutil.NoSuchProcess):
                daemon.kill()
        for daemon in daemons:
            wait_for(
                f"{daemon} ends after SIGKILL",
                lambda pid=daemon.pid: reaped(pid) or start_time(pid) is None,
                15,
            )
        shutil.rmtree(self._sockets, ignore_errors=True)
        # The record is last, because it marks the folder as a cluster's.
        for path in set(self.folder.iterdir()) - {self._record}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.folder)

    # -- its parts ---------------------------------------------------------

    @property
    def _record(self) -> pathlib.Path:
        return self.folder / "cluster.json"

    @property
    def _complete(self) -> pathlib.Path:
        """A file that exists once the cluster has been made to the end."""
        return self.folder / "complete"

    @property
    def _pids(self) -> pathlib.Path:
        return self.folder / "pid"

    @property
    def _sockets(self) -> pathlib.Path:
        """A folder with a short path: in the cluster's if that is short."""
        own = self.folder / "s"
        if len(str(own)) <= LONGEST_SOCKET_FOLDER:
            return own
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()
        return pathlib.Path("/tmp") / f"ceph-{digest[:16]}"

    def _daemons(self) -> list[Process]:
        """All daemons in the order they start."""
        osds = self.settings.osds if self._record.exists() else 0
        names = ["mon.a"] + [f"osd.{n}" for n in range(osds)] + ["mgr.x"]
        return [Process(self._pids, name) for name in names]

    def _is_daemon(self, process: psutil.Process) -> bool:
        """Whether it is a daemon of this cluster, formatting or serving."""
        try:
            words = process.cmdline()
        except psutil.Error:  # it has just ended
            return False
        return bool(words) and words[0] in DAEMONS and str(self.conf) in words

    def _program(self, name: str) -> str:
        return os.path.join(self.programs, name)

    def _chosen(self, names: tuple[str, ...]) -> list[Process]:
        """The daemons of these names or kinds ("osd"); all without a name."""
        if not names:
            return self._daemons()
        return [
            d
            for d in self._daemons()
            if d.name in names or d.name.partition(".")[0] in names
        ]

    def _launch(self, *names: str) -> None:
        for daemon in self._chosen(names):
            kind, _, number = daemon.name.partition(".")
            command = [self._program(f"ceph-{kind}"), "-f"]
            command += ["-c", str(self.conf)]
            log = self.folder / "log" / f"{daemon.name}.out"
            daemon.start([*command, "-i", number], log)

    def _make(self) -> None:
        missing = [
            p for p in PROGRAMS if shutil.which(self._program(p)) is None
        ]
        if missing:
            raise TestbedError(
                f"not installed: {', '.join(missing)}; "
                "install ceph-mon, ceph-mgr and ceph-osd"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # Until its daemon has bound it.
            with ports.choice():
                settings = self._choose_settings()
                uuids = {n: str(uuid.uuid4()) for n in range(settings.osds)}
                self._write_files(settings)
                # An OSD's mkfs needs only the monmap, so it runs while the
                # monitor starts.
                formats = {
                    n: stack.enter_context(self._format_osd(n, uuids[n]))
                    for n in uuids
                }
                self._start_first_mon()
            with self.admin() as cluster:
                pools.register_osds(cluster, uuids)
                self._launch("mgr")
                self._wait_for_formats(formats)
                self._launch("osd")
                pools.wait_for_osds(cluster, uuids)
                pools.make_pools(cluster, settings.osds >= 3)
                pools.wait_until_usable(cluster)
        self._complete.touch()

    def _choose_settings(self) -> ClusterSettings:
        seed = int(hashlib.sha256(str(self.folder).encode()).hexdigest(), 16)
        port = ceph_ports.free_pair(str(self._wanted["address"]), seed)
        settings = ClusterSettings(
            fsid=str(uuid.uuid4()), mon_port=port, **self._wanted
        )
        self._record.write_text(json.dumps(dataclasses.asdict(settings)))
        return settings

    def _write_files(self, settings: ClusterSettings) -> None:
        """Write configuration, monitor map and everybody's keyring."""
        for folder in ("log", "pid", "crash", "mon.a", "mgr.x"):
            (self.folder / folder).mkdir()
        self._sockets.mkdir(parents=True, exist_ok=True)
        self.conf.write_text(render(settings, self.folder, self._sockets))
        # A client can't use a key of a type that its release does not make.
        newest = users_.key_type(self._program("ceph-authtool"))
        kind = min(newest, users_.key_type())
        users = users_.make_users(range(settings.osds), kind, newest)
        for user in users:
            path = self.folder / f"ceph.{user.entity}.keyring"
            users_.write_private(path, user.keyring())
        # The monitor's first keyring makes all users at once, without an
        # `auth add` for each.
        users_.write_private(
            self.folder / "first.keyring", "".join(u.keyring() for u in users)
        )
        command = [self._program("monmaptool"), "--create"]
        command += ["--fsid", settings.fsid]
        command += ["--addv", "a", settings.mon_address]
        if kind < newest:
            command += ["--auth-allowed-ciphers", "aes,aes256k"]
            # For the users that tests add.
            command += ["--auth-preferred-cipher", "aes"]
        _run([*command, str(self.folder / "monmap")])

    def _format_osd(self, number: int, osd_uuid: str) -> subprocess.Popen:
        (self.folder / f"osd.{number}").mkdir()
        command = [
            self._program("ceph-osd"),
            "-c",
            str(self.conf),
            "-i",
            str(number),
        ]
        command += ["--mkfs", "--no-mon-config", "--osd-uuid", osd_uuid]
        command += ["--monmap", str(self.folder / "monmap")]
        log = self.folder / "log" / f"mkfs.osd.{number}"
        with log.open("w") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out)
        return child

    def _wait_for_formats(self, formats: dict[int, subprocess.Popen]) -> None:
        for number, child in formats.items():
            code = child.wait(60)
            if code:
                log = self.folder / "log" / f"mkfs.osd.{number}"
                raise TestbedError(f"mkfs of osd.{number}: {code}, see {log}")

    def _start_first_mon(self) -> None:
        command = [self._program("ceph-mon"), "-c", str(self.conf)]
        command += ["-i", "a", "--mkfs"]
        command += ["--no-mon-config", "--monmap"]
        command += [str(self.folder / "monmap"), "--keyring"]
        first_keyring = self.folder / "first.keyring"
        _run([*command, str(first_keyring)])
        first_keyring.unlink()
        self._launch("mon")
        self._wait_for_mon()

    def _wait_for_mon(self) -> None:
        """Wait until the monitor has bound its port, or fail with its log."""
        (monitor,) = self._chosen(("mon",))

        def bound() -> bool:
            if monitor.pid() is None:
                log = self.folder / "log" / "mon.a.out"
                raise TestbedError(f"the monitor died, see {log}")
            return (self._sockets / "mon.a.asok").exists()

        wait_for("the monitor runs", bound, 30, 0.02)

    def _start_again(self) -> None:
        self._sockets.mkdir(parents=True, exist_ok=True)
        if self._chosen(("mon",))[0].pid() is None:
            (self._sockets / "mon.a.asok").unlink(missing_ok=True)
        self._launch("mon")
        self._wait_for_mon()
        gone = [o.name for o in self._chosen(("osd",)) if o.pid() is None]
        with self.admin() as cluster:
            # The monitor may still believe that a killed OSD is up.
            epoch = pools.command(cluster, "osd dump")["epoch"]
            self._launch("mgr", "osd")
            numbers = [int(name.removeprefix("osd.")) for name in gone]
            pools.wait_for_osds(cluster, numbers, after_epoch=epoch)
            pools.wait_until_usable(cluster)


def release_of(version: str) -> int:
    """Return 16 for "ceph version 16.2.15 (...) pacific (stable)"."""
    return int(version.removeprefix("ceph version ").split(".")[0])


def _run(command: list[str]) -> None:
    """Run a short program; :raises TestbedError: with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise TestbedError(f"{command[0]}: {done.stderr.strip()}")
