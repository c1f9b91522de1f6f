# SPDX-License-Identifier: Apache-2.0

"""An instance as a nova-compute with local disks leaves it on its host."""

import contextlib
import json
import pathlib
import subprocess
import uuid

import libvirt
from lxml import etree

from nova_rbd_backend.cmd import main
from tests.support.guest_domain import domain_xml
from tests.support.program import Program

MIB = 1 << 20
NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"
#: What follows the name of an old disk after its conversion.
ASIDE = ".nova-rbd-converted"
PROJECT = "825f812fbc404ef4af21cdc5b7fb97d1"

DISK = """
<disk type='{kind}' device='{device}'>
  <driver name='qemu' type='{format}' cache='none' io='native'/>
  <source {attribute}='{path}'/>
  <target dev='{dev}' bus='{bus}'/>
  <serial>{dev}</serial>
  {more}
</disk>
"""

METADATA = f"""
<metadata><nova:instance xmlns:nova="{NOVA}">
  <nova:owner><nova:project uuid="{PROJECT}">demo</nova:project></nova:owner>
</nova:instance></metadata>
"""


def qemu_img(*words: object) -> str:
    return subprocess.run(
        ["qemu-img", *map(str, words)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


class LocalInstance:
    """An instance's folder with disks, and its domain; it does not run yet."""

    def __init__(self, folder: pathlib.Path, ceph, host):
        self.uuid = str(uuid.uuid4())
        self.instances = folder / "instances"
        self.folder = self.instances / self.uuid
        self.folder.mkdir(parents=True)
        self.console = self.folder / "console.log"
        self.ceph = ceph
        self.uri = host.libvirt_uri
        self.connection = libvirt.open(self.uri)
        self.disks: list[str] = []
        self.info: dict[str, str] = {}
        self.program = Program(folder, ceph.conf)
        with self.program.conf.open("a") as file:
            file.write(
                f"connection_uri = {self.uri}\n"
                f"[DEFAULT]\ninstances_path = {self.instances}\n"
            )

    # -- disks

    def path(self, name: str) -> pathlib.Path:
        return self.folder / name

    def overlay(self, name: str, base: pathlib.Path, size: int) -> None:
        """Make a qcow2 disk on a raw base, as Nova does from an image."""
        cache = self.instances / "_base"
        cache.mkdir(exist_ok=True)
        below = cache / base.name
        if not below.exists():
            below.write_bytes(base.read_bytes())
        options = f"backing_file={below},backing_fmt=raw"
        qemu_img(
            *("create", "-f", "qcow2", "-o", options, self.path(name), size)
        )

    def add(
        self,
        name: str,
        dev: str,
        form: str,
        device: str = "disk",
        path: pathlib.Path | None = None,
        more: str = "",
    ) -> None:
        """Add an existing disk to the domain that is going to be defined.

        :param path: a block device; without it the disk is a file in the
            instance's folder
        """
        block = path is not None
        where = path or self.path(name)
        self.disks.append(
            DISK.format(
                kind="block" if block else "file",
                attribute="dev" if block else "file",
                device=device,
                format=form,
                path=where,
                dev=dev,
                bus="virtio" if device == "disk" else "ide",
                more=more,
            )
        )
        if not block:
            self.info[str(where)] = form
            self.path("disk.info").write_text(json.dumps(self.info))

    def define(self) -> None:
        """Define the domain in libvirt, as Nova does."""
        xml = domain_xml(self.uuid, self.ceph.settings, self.console)
        root = etree.fromstring(xml)
        root.find("name").text = f"instance-{self.uuid[:8]}"
        etree.SubElement(root, "uuid").text = self.uuid
        root.append(etree.fromstring(METADATA))
        devices = root.find("devices")
        devices.remove(devices.find("disk"))
        for disk in self.disks:
            devices.append(etree.fromstring(disk))
        self.connection.defineXML(etree.tostring(root, encoding="unicode"))

    # -- conversion

    def convert_here(self, *words: str) -> int:
        """Run nova-rbd convert in this process; return its exit status."""
        conf = str(self.program.conf)
        return main.main(["--config-file", conf, "convert", self.uuid, *words])

    # -- domain

    @property
    def domain(self):
        return self.connection.lookupByUUIDString(self.uuid)

    def start(self) -> None:
        self.domain.create()

    def stop(self) -> None:
        self.domain.destroy()

    def sources(self, live: bool = False) -> dict[str, str]:
        """Return each disk's path, or pool/image, by its name in the guest."""
        flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
        root = etree.fromstring(self.domain.XMLDesc(flags))
        found = {}
        for disk in root.iterfind("devices/disk"):
            source = disk.find("source")
            found[disk.find("target").get("dev")] = (
                source.get("file") or source.get("dev") or source.get("name")
            )
        return found

    def image(self, name: str) -> str:
        return f"{self.uuid}_{name}"

    def is_same(self, vms, name: str, path: pathlib.Path, form: str) -> bool:
        """Compare a disk in Ceph with a local one, without using nova-rbd."""
        raw = self.folder.parent / "compared.raw"
        qemu_img("convert", "-f", form, "-O", "raw", path, raw)
        try:
            with vms.open(self.image(name)) as disk:
                return disk.read(0, disk.size_bytes()) == raw.read_bytes()
        finally:
            raw.unlink()

    def files(self) -> set[str]:
        """Return the names in the instance's folder that belong to disks."""
        others = {"disk.info", "console.log"}
        return {path.name for path in self.folder.iterdir()} - others

    def remove(self) -> None:
        """Destroy and undefine the domain."""
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.destroy()
        with contextlib.suppress(libvirt.libvirtError):
            self.domain.undefine()
        self.connection.close()
