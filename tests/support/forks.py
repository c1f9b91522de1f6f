# SPDX-License-Identifier: Apache-2.0

"""Start Python processes quickly, as forks of one that has imported all.

Importing what nova-rbd or nova-compute needs takes seconds of CPU time, and
tests that kill a process at each of its steps start hundreds of processes. A
process cannot fork itself once it has threads or connections to Ceph, as
pytest has. So a server is started that only imports modules. It forks a
watcher for each run, and the watcher forks the process of the run. That
process begins like a new one, calls one function, and ends.

The server runs ``python -m tests.support.forks SOCKET MODULE...``.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn

# The standard streams of a run, and the pipe for its pid and its exit code.
_FILES = 4
_MOST_BYTES = 1 << 16
# As they are before an import has eventlet replace them: those would wait in a
# hub, and for ever if the pipe is broken.
_write, _waitpid = os.write, os.waitpid


class Fork:
    """A process that the server has forked.

    :ivar pid: of the process, not of its watcher
    """

    def __init__(self, status: IO[str]):
        self._status = status
        self._code: int | None = None
        self.pid = int(self._status.readline())

    def kill(self) -> None:
        """SIGKILL. Does nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, limit_seconds: float) -> int:
        """Return its exit code, which is -N if signal N killed it.

        :raises AssertionError: it did not end within the limit; it is killed
        """
        if self._code is None:
            if not select.select([self._status], [], [], limit_seconds)[0]:
                self.kill()
                raise AssertionError(f"it still ran after {limit_seconds} s")
            with self._status:
                self._code = int(self._status.readline())
        return self._code


class ForkServer:
    """A process that has imported modules, and forks; use it in a ``with``.

    :param command: makes a command line of another one, to run it elsewhere
    :param env: its environment; this process's by default
    """

    def __init__(
        self,
        *modules: str,
        command: Callable[[list[str]], list[str]] = lambda words: words,
        env: Mapping[str, str] | None = None,
    ):
        self._end, other = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        with other:
            number = other.fileno()
            self._server = subprocess.Popen(
                command(
                    [sys.executable, "-m", __name__, str(number), *modules]
                ),
                env=env,
                pass_fds=[number],
            )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *error: object) -> None:
        self._end.close()
        assert self._server.wait(30) == 0

    def start(
        self,
        function: Callable[..., object],
        *arguments: str,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
    ) -> Fork:
        """Start a process that calls a function of a module.

        It ends with 0 if the function returns, with 1 if it raises, or as
        sys.exit says.

        :param stdout, stderr: a file, or subprocess.DEVNULL
        """
        work = [function.__module__, function.__qualname__, *arguments]
        message = json.dumps(work).encode()
        assert len(message) <= _MOST_BYTES
        reading, writing = os.pipe()
        with open(os.devnull, "r+b") as null, open(writing, "wb") as status:
            streams: list[Any] = [
                null if stream == subprocess.DEVNULL else stream
                for stream in (subprocess.DEVNULL, stdout, stderr)
            ]
            numbers = [file.fileno() for file in (*streams, status)]
            socket.send_fds(self._end, [message], numbers)
        return Fork(open(reading))

    def run(
        self,
        function: Callable[..., object],
        *arguments: str,
        limit_seconds: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a function to the end of its process; see :meth:`start`."""
        with (
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            fork = self.start(
                function, *arguments, stdout=stdout, stderr=stderr
            )
            code = fork.wait(limit_seconds)
            for file in (stdout, stderr):
                file.seek(0)
            return subprocess.CompletedProcess(
                arguments, code, stdout.read(), stderr.read()
            )


def main() -> None:
    """Import modules, then fork for each message until the socket ends.

    A module may have a function ``before_forks`` for what all its processes
    would do first.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        module = importlib.import_module(name)
        getattr(module, "before_forks", lambda: None)()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, "a fork would lack the threads of the imports"
    # Objects of the imports stay where they are: no fork has to copy them.
    gc.collect()
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(control, _MOST_BYTES, _FILES)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _watch(json.loads(message), *files)
        for file in files:
            os.close(file)
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while _waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(work: Sequence[str], *files: int) -> NoReturn:
    """Fork the process of a run, and report its pid and its exit code."""
    *streams, status = files
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _run(work, streams)
    for file in streams:
        os.close(file)
    _report(status, pid)
    _report(status, os.waitstatus_to_exitcode(_waitpid(pid, 0)[1]))
    os._exit(0)


def _report(status: int, number: int) -> None:
    # The one who started it may be gone.
    with contextlib.suppress(BrokenPipeError):
        _write(status, f"{number}\n".encode())


def _renew_hub() -> None:
    """Make an own hub, if the imports have made one.

    All forks would get the events of its epoll, each other's too.
    """
    if hubs := sys.modules.get("eventlet.hubs"):
        hubs.use_hub()


def _run(work: Sequence[str], streams: Sequence[int]) -> NoReturn:
    """Be the process of a run."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _renew_hub()
        module, function, *arguments = work
        getattr(importlib.import_module(module), function)(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
