# SPDX-License-Identifier: Apache-2.0

"""The files of a simulated host: libvirt's configuration, hosts, passwd."""

import pathlib
from typing import Protocol

HOSTS = range(1, 10)
# Below the kernel's range for outgoing connections.
FIRST_MIGRATION_PORT = 20000
MIGRATION_PORTS = 100
# libvirtd wants this user and group to exist even where QEMU runs as root.
# The id is the one that Debian has reserved for them.
LIBVIRT_QEMU_ID = 64055


class Host(Protocol):
    number: int
    name: str
    network: str
    address: str
    uuid: str
    folder: pathlib.Path


def address(network: str, number: int) -> str:
    return f"{network}.1{number}"


def write_all(host: Host) -> None:
    """Write what the host sees in /etc."""
    files = {
        "etc/libvirtd.conf": _libvirtd_conf(host),
        "etc/qemu.conf": _qemu_conf(host),
        "etc/libvirt.conf": "",
        "hosts": _hosts(host.network),
        "passwd": _with_user(pathlib.Path("/etc/passwd").read_text()),
        "group": _with_group(pathlib.Path("/etc/group").read_text()),
    }
    for name, text in files.items():
        (host.folder / name).write_text(text)


def secret_xml(secret_uuid: str, user: str) -> str:
    return (
        "<secret ephemeral='no' private='no'>"
        f"<uuid>{secret_uuid}</uuid>"
        f"<usage type='ceph'><name>client.{user} secret</name></usage>"
        "</secret>"
    )


def _libvirtd_conf(host: Host) -> str:
    # Without keepalive, as a test that waits in a call answers no question of
    # libvirtd, which would end its connection after half a minute.
    return f"""\
listen_tls = 0
listen_tcp = 1
listen_addr = "{host.address}"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_rw_perms = "0700"
keepalive_interval = -1
host_uuid = "{host.uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""


def _qemu_conf(host: Host) -> str:
    first = FIRST_MIGRATION_PORT + host.number * MIGRATION_PORTS
    return f"""\
user = "root"
group = "root"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
seccomp_sandbox = 0
stdio_handler = "file"
migration_address = "{host.address}"
migration_host = "{host.address}"
migration_port_min = {first}
migration_port_max = {first + MIGRATION_PORTS - 1}
"""


def _hosts(network: str) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{address(network, n)} host{n}" for n in HOSTS]
    return "\n".join(lines) + "\n"


def _with_user(passwd: str) -> str:
    if "\nlibvirt-qemu:" in passwd:
        return passwd
    ids = f"{LIBVIRT_QEMU_ID}:{LIBVIRT_QEMU_ID}"
    return (
        passwd.rstrip("\n")
        + f"\nlibvirt-qemu:x:{ids}::/var/lib/libvirt:/usr/sbin/nologin\n"
    )


def _with_group(group: str) -> str:
    if "\nlibvirt-qemu:" in group:
        return group
    return group.rstrip("\n") + f"\nlibvirt-qemu:x:{LIBVIRT_QEMU_ID}:\n"
