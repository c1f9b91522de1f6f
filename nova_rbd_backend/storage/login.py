# SPDX-License-Identifier: Apache-2.0

"""Does this key log in? The one connection that is not kept."""

import rados

from nova_rbd_backend.storage import ceph_errors, cluster


def try_key(settings: cluster.ClusterSettings, key: str) -> None:
    """Log in to the cluster with a key in place of the keyring's.

    Blocks for at most the connect timeout. The key has to be well-formed:
    librados writes what it cannot decode to its log. librados: rados_connect.

    :param key: as a keyring has it, base64
    :raises errors.NotPermitted: the cluster has another key for this user
    :raises errors.ClusterUnreachable: no answer in time
    """
    with ceph_errors.translated("read the conf file", kind="conf file"):
        handle = rados.Rados(
            conffile=settings.conf_file or "",
            rados_id=settings.user,
            conf={
                "key": key,
                "client_mount_timeout": str(settings.connect_timeout_seconds),
                # 16.2 tells of a monitor's answer that comes after the end.
                "err_to_stderr": "false",
                "log_to_stderr": "false",
            },
        )
    try:
        with ceph_errors.translated("log in to the cluster"):
            handle.connect(timeout=settings.connect_timeout_seconds)
    finally:
        handle.shutdown()
