# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

# What of python3-rados 16.2 this package uses; Ceph ships no types.
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

LIBRADOS_CMPXATTR_OP_EQ: Final[int]
LIBRADOS_CREATE_IDEMPOTENT: Final[int]

class Error(Exception):
    errno: int | None
    def __init__(self, message: str, errno: int | None = None) -> None: ...

class OSError(Error): ...
class ObjectNotFound(OSError): ...
class ObjectExists(OSError): ...
class ObjectBusy(OSError): ...

class WriteOp:
    def new(self, exclusive: int | None = None) -> None: ...
    def omap_cmp(self, key: str, val: str, cmp_op: int = ...) -> None: ...
    def execute(self, cls: str, method: str, data: bytes) -> None: ...
    def rm_xattr(self, xattr_name: str) -> None: ...

class ReadOp: ...

class WriteOpCtx:
    def __enter__(self) -> WriteOp: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

class ReadOpCtx:
    def __enter__(self) -> ReadOp: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

class Ioctx:
    def set_namespace(self, nspace: str) -> None: ...
    def remove_object(self, key: str) -> bool: ...
    def get_xattrs(self, oid: str) -> Iterator[tuple[str, bytes]]: ...
    def lock_exclusive(
        self,
        key: str,
        name: str,
        cookie: str,
        desc: str = "",
        duration: int | None = None,
        flags: int = 0,
    ) -> None: ...
    def execute(
        self,
        key: str,
        cls: str,
        method: str,
        data: bytes,
        length: int = 8192,
    ) -> tuple[int, bytes]: ...
    def get_omap_vals(
        self,
        read_op: ReadOp,
        start_after: str,
        filter_prefix: str,
        max_return: int,
    ) -> tuple[Iterator[tuple[str, bytes]], int]: ...
    def get_omap_vals_by_keys(
        self, read_op: ReadOp, keys: Sequence[str]
    ) -> tuple[Iterator[tuple[str, bytes]], int]: ...
    def set_omap(
        self, write_op: WriteOp, keys: Sequence[str], values: Sequence[bytes]
    ) -> None: ...
    def remove_omap_keys(
        self, write_op: WriteOp, keys: Sequence[str]
    ) -> None: ...
    def aio_notify(
        self,
        obj: str,
        oncomplete: Callable[[Any, int, Any, Any], None],
        msg: str = "",
        timeout_ms: int = 5000,
    ) -> object: ...
    def operate_read_op(self, read_op: ReadOp, oid: str) -> None: ...
    def operate_write_op(self, write_op: WriteOp, oid: str) -> None: ...

class Rados:
    def __init__(
        self,
        *,
        conffile: str | None = None,
        rados_id: str | None = None,
        conf: Mapping[str, str] | None = None,
    ) -> None: ...
    def connect(self, timeout: int = 0) -> None: ...
    def shutdown(self) -> None: ...
    def conf_get(self, option: str) -> str | None: ...
    def get_fsid(self) -> str: ...
    def get_addrs(self) -> str: ...
    def get_instance_id(self) -> int: ...
    def blocklist_add(
        self, client_address: str, expire_seconds: int = 0
    ) -> None: ...
    def pool_reverse_lookup(self, pool_id: int) -> str: ...
    def open_ioctx(self, ioctx_name: str) -> Ioctx: ...
    def mon_command(
        self, cmd: str, inbuf: bytes, timeout: int = 0
    ) -> tuple[int, bytes, str]: ...
    def mgr_command(
        self, cmd: str, inbuf: bytes, timeout: int = 0
    ) -> tuple[int, bytes, str]: ...
