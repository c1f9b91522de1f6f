# SPDX-License-Identifier: Apache-2.0

"""What all parts of one OpenStack share: folders, ports, the password."""

import dataclasses
import os
import pathlib
import secrets
from collections.abc import Mapping

from tests.testbed import nova_threads, ports
from tests.testbed.process import Process

ADDRESS = "127.0.0.1"
REGION = "RegionOne"
PORTS = (
    "keystone",
    "placement",
    "glance",
    "nova",
    "network",
    "volume",
    "rabbitmq",
    "rabbitmq_distribution",
    "epmd",
    "memcached",
)


@dataclasses.dataclass(frozen=True)
class Site:
    """One OpenStack in one folder."""

    folder: pathlib.Path
    venv: pathlib.Path
    ceph_conf: pathlib.Path
    ports: Mapping[str, int]
    password: str = dataclasses.field(repr=False)

    @classmethod
    def load(
        cls,
        folder: pathlib.Path,
        venv: pathlib.Path,
        ceph_conf: pathlib.Path,
    ) -> "Site":
        """Read the folder's ports and password; make them at first use."""
        others = folder.parent.parent.glob(f"*/{folder.name}/ports.json")
        chosen = ports.remembered(folder / "ports.json", PORTS, others)
        secret = folder / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(16))
        return cls(folder, venv, ceph_conf, chosen, secret.read_text())

    def bin(self, program: str) -> str:
        """A program of the venv."""
        return str(self.venv / "bin" / program)

    def etc(self, service: str) -> pathlib.Path:
        """The folder with one service's configuration."""
        return self.folder / "etc" / service

    def log(self, name: str) -> pathlib.Path:
        """Where a process's output, or a service's log, is written."""
        return self.folder / "log" / f"{name}.log"

    def process(self, name: str) -> Process:
        """One of this OpenStack's processes, whether or not it runs."""
        return Process(self.folder / "run", name)

    def url(self, service: str, path: str = "") -> str:
        """The service's address on loopback."""
        return f"http://{ADDRESS}:{self.ports[service]}{path}"

    @property
    def socket(self) -> pathlib.Path:
        """MariaDB's Unix socket, the only way into it."""
        return self.folder / "db.sock"

    def database(self, name: str) -> str:
        """The SQLAlchemy URL of a database; the socket needs no password."""
        return (
            f"mysql+pymysql://root@localhost/{name}"
            f"?unix_socket={self.socket}&charset=utf8mb4"
        )

    @property
    def transport_url(self) -> str:
        """URL of the message queue, with the password; for 0600 files only."""
        port = self.ports["rabbitmq"]
        return f"rabbit://openstack:{self.password}@{ADDRESS}:{port}/"

    def environment(self) -> dict[str, str]:
        """The environment of the testbed's processes; not the caller's."""
        return {
            "PATH": f"{self.venv}/bin:/usr/local/sbin:/usr/sbin:/sbin:"
            "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **nova_threads.environment(),
        }

    def client_environment(self) -> dict[str, str]:
        """The admin's OS_* variables for ``openstack`` and openstacksdk."""
        return {
            "OS_AUTH_URL": self.url("keystone", "/v3"),
            "OS_USERNAME": "admin",
            "OS_PASSWORD": self.password,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_REGION_NAME": REGION,
            "OS_COMPUTE_API_VERSION": "2.90",
            "CEPH_CONF": str(self.ceph_conf),
            "PATH": f"{self.venv}/bin:{os.environ.get('PATH', '')}",
        }
