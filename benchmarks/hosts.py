# SPDX-License-Identifier: Apache-2.0

"""The simulated compute hosts: start, ask, end."""

import json
import pathlib
import selectors
import subprocess
import sys
from typing import Any

from tests.testbed import paths, process
from tests.testbed.ceph import cluster as ceph

ANSWER_SECONDS = 900


class Host:
    """A process that acts as one compute host of one side."""

    def __init__(
        self,
        side: str,
        folder: pathlib.Path,
        cluster: ceph.CephCluster,
        user: str = "nova",
        green: bool = False,
        checkout: pathlib.Path = paths.CHECKOUT,
    ) -> None:
        """Start the process.

        :param checkout: has the benchmarks and the backend that it runs
        """
        self.side = side
        self.folder = folder
        self.conf = str(cluster.conf)
        folder.mkdir(parents=True, exist_ok=True)
        how = {
            "side": side,
            "folder": str(folder),
            "conf": str(cluster.conf),
            "user": user,
            "green": green,
        }
        self._ready = False
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-m",
                    "benchmarks.host_program",
                    json.dumps(how),
                ],
                cwd=checkout,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        if not self._ready:
            self.answer()
            self._ready = True

    def tell(self, do: str, **arguments: Any) -> None:
        """Make it begin a piece of work; answer() waits for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the end of the work and return its result.

        :raises TestbedError: the work failed; has the traceback
        """
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            if not ready.select(ANSWER_SECONDS):
                raise process.TestbedError(
                    f"{self.side}: no answer within {ANSWER_SECONDS} s"
                )
        line = self._process.stdout.readline()
        if not line:
            log = self._log.read_text()[-4000:]
            raise process.TestbedError(f"{self.side} has ended:\n{log}")
        answer = json.loads(line)
        if "error" in answer:
            raise process.TestbedError(f"{self.side}: {answer['error']}")
        return answer["ok"]

    def ask(self, do: str, **arguments: Any) -> Any:
        self.tell(do, **arguments)
        return self.answer()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)
