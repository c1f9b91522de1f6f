# SPDX-License-Identifier: Apache-2.0

"""Images, flavors and servers through OpenStack's APIs, each wait limited."""

import pathlib

import openstack.connection
import openstack.exceptions
from openstack.compute.v2.flavor import Flavor
from openstack.compute.v2.server import Server
from openstack.image.v2.image import Image

from tests.testbed.process import TestbedError, wait_for

BOOT_SECONDS = 120
DELETE_SECONDS = 90
UPLOAD_SECONDS = 300
IN_USE_SECONDS = 5


class ServerFault(TestbedError):
    """A server went to ERROR; the text is the fault Nova shows its user."""

    def __init__(self, server: Server):
        self.server = server
        self.message = str((server.fault or {}).get("message", ""))
        super().__init__(f"server {server.name} {server.id}: {self.message}")


class Servers:
    """What a user does with the cloud, as the admin."""

    def __init__(self, connection: openstack.connection.Connection):
        self._connection = connection

    def upload(
        self,
        name: str,
        path: pathlib.Path,
        disk_format: str,
        store: str,
        container_format: str = "bare",
    ) -> Image:
        """Upload a file as a public image into one of Glance's stores.

        :param store: 'rbd' or 'file'
        :raises openstack.exceptions.SDKException: Glance refuses it; nothing
            of it stays
        """
        glance = self._connection.image
        image = glance.create_image(
            name=name,
            disk_format=disk_format,
            container_format=container_format,
            visibility="public",
            allow_duplicates=True,
        )
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Image-Meta-Store": store,
        }
        with path.open("rb") as data:
            answer = glance.put(
                f"/images/{image.id}/file",
                data=data,
                headers=headers,
                timeout=UPLOAD_SECONDS,
            )
        try:
            openstack.exceptions.raise_from_response(answer)
        except openstack.exceptions.SDKException:
            glance.delete_image(image)
            raise
        return glance.get_image(image)

    def delete_image(self, image: Image) -> None:
        """Delete an image in Glance; try again while it is in use.

        A snapshot is in use for some 10 ms at the end of its detachment.
        """
        glance = self._connection.image

        def deleted() -> bool:
            try:
                glance.delete_image(image)
            except openstack.exceptions.ConflictException:
                return False
            return True

        wait_for(f"image {image.id} is not in use", deleted, IN_USE_SECONDS, 1)

    def flavor(
        self,
        name: str,
        disk_gib: int = 1,
        ephemeral_gib: int = 0,
        swap_mib: int = 0,
        ram_mib: int = 128,
    ) -> Flavor:
        """Return the flavor of this name; make it if there is none."""
        nova = self._connection.compute
        found: Flavor | None = nova.find_flavor(name)
        return found or nova.create_flavor(
            name=name,
            vcpus=1,
            ram=ram_mib,
            disk=disk_gib,
            ephemeral=ephemeral_gib,
            swap=swap_mib,
        )

    def create(
        self, name: str, image: Image, flavor: Flavor, **more: object
    ) -> Server:
        """Ask for a server without networks; don't wait."""
        return self._connection.compute.create_server(
            name=name,
            image_id=image.id,
            flavor_id=flavor.id,
            networks="none",
            **more,
        )

    def boot(
        self, name: str, image: Image, flavor: Flavor, **more: object
    ) -> Server:
        """Create a server and wait until it is ACTIVE.

        :raises ServerFault: it went to ERROR
        """
        return self.wait(self.create(name, image, flavor, **more))

    def wait(
        self,
        server: Server,
        status: str = "ACTIVE",
        limit_seconds: float = BOOT_SECONDS,
    ) -> Server:
        """Wait until the server has the status and no task is under way.

        :raises ServerFault: it went to ERROR
        """

        def arrived() -> Server | None:
            now = self.get(server)
            if now.status == "ERROR" and status != "ERROR":
                raise ServerFault(now)
            done = now.status == status and now.task_state is None
            return now if done else None

        what = f"server {server.name} {server.id} is {status}"
        return wait_for(what, arrived, limit_seconds, interval_seconds=0.25)

    def get(self, server: Server) -> Server:
        return self._connection.compute.get_server(server.id)

    def delete(
        self, server: Server, limit_seconds: float = DELETE_SECONDS
    ) -> None:
        """Delete a server, unless it is gone, and wait until it is gone.

        :raises ServerFault: Nova could not delete it
        """
        nova = self._connection.compute
        nova.delete_server(server.id, ignore_missing=True)

        def gone() -> bool:
            try:
                now = self.get(server)
            except openstack.exceptions.NotFoundException:
                return True
            # The API sets the task at once, so this delete has failed.
            if now.status == "ERROR" and now.task_state is None:
                raise ServerFault(now)
            return False

        wait_for(
            f"server {server.name} {server.id} is deleted",
            gone,
            limit_seconds,
            interval_seconds=0.25,
        )

    def delete_all(self) -> None:
        """Delete the servers of all projects."""
        servers = list(self._connection.compute.servers(all_projects=True))
        for server in servers:
            self._connection.compute.delete_server(server.id)
        for server in servers:
            self.delete(server)
