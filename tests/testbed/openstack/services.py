# SPDX-License-Identifier: Apache-2.0

"""Keystone, Placement, Glance and Nova's control services as processes."""

import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

from tests.testbed import nova_threads
from tests.testbed.openstack import network_endpoint, volume_endpoint
from tests.testbed.openstack.site_facts import ADDRESS, Site
from tests.testbed.process import ended_at_start, wait_for

START_SECONDS = 90
APIS = ("keystone", "placement", "glance", "nova", "network", "volume")


class Services:
    """The control services; their infrastructure must run already."""

    def __init__(self, site: Site):
        self._site = site

    def start_apis(self) -> None:
        """Start the APIs that do not run yet, without waiting."""
        site = self._site
        self._uwsgi(
            "keystone",
            "keystone.wsgi.api",
            "keystone-wsgi-public",
            OS_KEYSTONE_CONFIG_DIR=str(site.etc("keystone")),
            OS_KEYSTONE_CONFIG_FILES=str(
                site.etc("keystone") / "keystone.conf"
            ),
        )
        self._uwsgi(
            "placement",
            "placement.wsgi.api",
            "placement-api",
            OS_PLACEMENT_CONFIG_DIR=str(site.etc("placement")),
        )
        self._uwsgi(
            "nova",
            "nova.wsgi.osapi_compute",
            "nova-api-wsgi",
            on_eventlet=nova_threads.kind() == nova_threads.EVENTLET,
            OS_NOVA_CONFIG_DIR=str(site.etc("nova")),
        )
        # uWSGI breaks Glance's chunked uploads ("unable to receive chunked
        # part", uWSGI 2.0.31), gunicorn does not.
        self._start(
            "glance",
            [
                site.bin("gunicorn"),
                "-b",
                f"{ADDRESS}:{site.ports['glance']}",
                "-w",
                "1",
                "-k",
                "gthread",
                "--threads",
                "8",
                "--timeout",
                "600",
                "--graceful-timeout",
                "3",
                # By default it closes a connection that was idle for 2 s,
                # just when a client may use it again.
                "--keep-alive",
                "600",
                "glance.common.wsgi_app:init_app()",
            ],
            OS_GLANCE_CONFIG_DIR=str(site.etc("glance")),
        )
        for name, stand_in in (
            ("network", network_endpoint),
            ("volume", volume_endpoint),
        ):
            port = str(site.ports[name])
            command = [sys.executable, str(stand_in.__file__), ADDRESS, port]
            self._start(name, command)

    def start_workers(self) -> None:
        """Start conductor and scheduler, without waiting."""
        conf = str(self._site.etc("nova") / "nova.conf")
        for name in ("nova-conductor", "nova-scheduler"):
            self._start(name, [self._site.bin(name), "--config-file", conf])

    def wait(self, names: Sequence[str] = APIS) -> None:
        """Wait until each API answers anything at all.

        :raises TestbedError: an API ended or doesn't answer; names its log
        """
        for name in names:
            wait_for(
                f"{name} answers at {self._site.url(name)}, see "
                f"{self._site.log(name)}",
                lambda name=name: self._answers(name),
                START_SECONDS,
            )

    def _answers(self, name: str) -> bool:
        if self._site.process(name).pid() is None:
            raise ended_at_start(name, self._site.log(name))
        try:
            urllib.request.urlopen(self._site.url(name, "/"), timeout=30)
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False
        return True

    def _uwsgi(
        self,
        name: str,
        module: str,
        script: str,
        on_eventlet: bool = False,
        **env: str,
    ) -> None:
        """Start an API by its script, or by its module in newer releases."""
        site = self._site
        # uWSGI's threads are native. In each one eventlet would have a hub of
        # its own, and none would run what another one has spawned.
        processes, threads = (3, 1) if on_eventlet else (1, 8)
        program = pathlib.Path(site.bin(script))
        application = (
            ["--wsgi-file", str(program)]
            if program.exists()
            else ["--module", f"{module}:application"]
        )
        self._start(
            name,
            [
                site.bin("uwsgi"),
                "--http-socket",
                f"{ADDRESS}:{site.ports[name]}",
                *application,
                "--master",
                "--processes",
                str(processes),
                "--enable-threads",
                "--threads",
                str(threads),
                "--lazy-apps",
                "--need-app",
                "--buffer-size",
                "65535",
                "--http-chunked-input",
                "--http-raw-body",
                "--die-on-term",
                "--disable-logging",
                "--add-header",
                "Connection: close",
                "--venv",
                str(site.venv),
                "--hook-master-start",
                "unix_signal:15 gracefully_kill_them_all",
            ],
            **env,
        )

    def _start(self, name: str, command: Sequence[str], **env: str) -> None:
        self._site.process(name).start(
            command,
            self._site.log(name),
            env={**self._site.environment(), **env},
        )
