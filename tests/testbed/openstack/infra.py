# SPDX-License-Identifier: Apache-2.0

"""MariaDB, RabbitMQ and memcached, as processes in the testbed's folder."""

import shutil
import subprocess

import pymysql

from tests.testbed import ports
from tests.testbed.openstack.site_facts import ADDRESS, Site
from tests.testbed.process import TestbedError, ended_at_start, wait_for

DATABASES = (
    "keystone",
    "placement",
    "glance",
    "nova_api",
    "nova",
    "nova_cell0",
)


class Infra:
    """What OpenStack's services need, on loopback or Unix sockets."""

    def __init__(self, site: Site):
        self._site = site

    def start(self) -> None:
        """Start those that do not run, and wait until all three answer."""
        # RabbitMQ is first because it takes longest.
        self._start_epmd()
        self._start_rabbitmq()
        self._site.process("memcached").start(
            [
                "memcached",
                "-u",
                "root",
                "-m",
                "64",
                "-l",
                ADDRESS,
                "-p",
                str(self._site.ports["memcached"]),
            ],
            self._site.log("memcached"),
        )
        self.start_mariadb()
        self._wait_port("rabbitmq", 60)
        self._wait_port("memcached", 10)

    def _wait_port(self, name: str, limit_seconds: float) -> None:
        port = self._site.ports[name]
        log = self._site.log(name)

        def answers() -> bool:
            if self._site.process(name).pid() is None:
                raise ended_at_start(name, log)
            return ports.listening(port)

        wait_for(
            f"{name} listens on {ADDRESS}:{port}, see {log}",
            answers,
            limit_seconds,
        )

    def start_mariadb(self) -> None:
        """Install and start MariaDB if it does not run; usable on return."""
        site, data = self._site, self._site.folder / "mariadb"
        # Not /tmp: a server that starts deletes every "#sql*" file there, and
        # so the tables of a second testbed that is being installed.
        tmpdir = f"--tmpdir={data}"
        made = data / "testbed-complete"
        if not made.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(parents=True)
            done = subprocess.run(
                [
                    "mariadb-install-db",
                    "--no-defaults",
                    "--user=root",
                    f"--datadir={data}",
                    tmpdir,
                    "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise TestbedError(
                    f"mariadb-install-db: {done.stdout}{done.stderr}"
                )
            made.touch()
        self._site.process("mariadb").start(
            [
                "/usr/sbin/mariadbd",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                tmpdir,
                f"--socket={site.socket}",
                f"--pid-file={data}/mariadb.pid",
                "--skip-networking",
                "--skip-name-resolve",
                "--max-connections=500",
                "--character-set-server=utf8mb4",
                # No data in a testbed has to survive a power cut.
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-doublewrite=0",
                "--innodb-buffer-pool-size=128M",
            ],
            site.log("mariadb"),
        )
        wait_for(
            f"MariaDB answers, see {site.log('mariadb')}",
            self._make_databases,
            30,
        )

    def _make_databases(self) -> bool:
        try:
            connection = pymysql.connect(
                user="root", unix_socket=str(self._site.socket)
            )
        except pymysql.err.OperationalError:
            return False
        with connection, connection.cursor() as cursor:
            for name in DATABASES:
                cursor.execute(
                    f"create database if not exists {name} "
                    "character set utf8mb3"
                )
        return True

    def _start_epmd(self) -> None:
        # RabbitMQ would start an epmd itself, as a daemon that outlives it.
        port = str(self._site.ports["epmd"])
        self._site.process("epmd").start(
            ["epmd", "-address", ADDRESS, "-port", port],
            self._site.log("epmd"),
        )
        self._wait_port("epmd", 10)

    def _start_rabbitmq(self) -> None:
        site = self._site
        folder = site.folder / "rabbitmq"
        folder.mkdir(parents=True, exist_ok=True)
        conf = folder / "rabbitmq.conf"
        conf.touch(mode=0o600)
        conf.write_text(
            f"listeners.tcp.1 = {ADDRESS}:{site.ports['rabbitmq']}\n"
            f"default_user = openstack\ndefault_pass = {site.password}\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        name = f"rabbit{site.ports['rabbitmq']}@localhost"
        self._site.process("rabbitmq").start(
            # Debian's /usr/sbin/rabbitmq-server would change the user.
            ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
            site.log("rabbitmq"),
            env={
                **site.environment(),
                "HOME": str(folder),
                "RABBITMQ_NODENAME": name,
                "RABBITMQ_CONFIG_FILE": str(conf),
                "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
                "RABBITMQ_LOG_BASE": str(folder / "log"),
                "RABBITMQ_PID_FILE": str(folder / "pid"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": "/dev/null",
                "RABBITMQ_DIST_PORT": str(site.ports["rabbitmq_distribution"]),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "-kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "ERL_EPMD_ADDRESS": ADDRESS,
                "ERL_EPMD_PORT": str(site.ports["epmd"]),
            },
        )
