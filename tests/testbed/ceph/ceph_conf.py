# SPDX-License-Identifier: Apache-2.0

"""The ceph.conf of a throwaway cluster, tuned to start in seconds.

Facts and times measured with Ceph 16.2.15 on two cores.
"""

import dataclasses
import pathlib

GIB = 1 << 30
MIB = 1 << 20

# Each costs the mgr start-up time and memory.  The always-on ones
# (devicehealth, telemetry, rbd_support, ...) may not be disabled: HEALTH_ERR
# MGR_MODULE_ERROR.
UNUSED_MGR_MODULES = (
    "diskprediction_local alerts influx insights iostat localpool mirroring "
    "nfs osd_perf_query prometheus restful selftest snap_schedule stats "
    "telegraf test_orchestrator zabbix"
)


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """What a cluster is made with; fixed for its life."""

    fsid: str
    address: str
    mon_port: int
    osds: int = 3
    replicas: int = 1
    msgr2_only: bool = False
    watch_timeout_seconds: int = 30
    osd_store_bytes: int = 40 * GIB

    @property
    def mon_address(self) -> str:
        """The monitor's address vector; msgr1 listens on the next port."""
        host = f"[{self.address}]" if self.ipv6 else self.address
        v2 = f"v2:{host}:{self.mon_port}"
        if self.msgr2_only:
            return f"[{v2}]"
        return f"[{v2},v1:{host}:{self.mon_port + 1}]"

    @property
    def ipv6(self) -> bool:
        return ":" in self.address


def render(
    settings: ClusterSettings, folder: pathlib.Path, sockets: pathlib.Path
) -> str:
    """Return the text of ceph.conf.

    :param sockets: a folder with a short path, because the path of a Unix
        socket is limited to 107 bytes
    """
    sections = {
        "global": _network(settings) | _global(settings, folder, sockets),
        # Clients log to stderr alone and leave no sockets behind.
        "client": {"log_file": "", "admin_socket": ""},
        "mon": _mon(folder),
        "mgr": _mgr(folder),
        "osd": _osd(settings, folder),
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in options.items())
        for name, options in sections.items()
    )


def _network(settings: ClusterSettings) -> dict[str, object]:
    return {
        "fsid": settings.fsid,
        "mon_host": settings.mon_address,
        "mon_initial_members": "a",
        "public_addr": settings.address,
        "cluster_addr": settings.address,
        "ms_bind_ipv4": str(not settings.ipv6).lower(),
        "ms_bind_ipv6": str(settings.ipv6).lower(),
        "ms_bind_msgr1": str(not settings.msgr2_only).lower(),
        "ms_bind_msgr2": "true",
        "auth_cluster_required": "cephx",
        "auth_service_required": "cephx",
        "auth_client_required": "cephx",
        "auth_allow_insecure_global_id_reclaim": "false",
    }


def _global(
    settings: ClusterSettings, folder: pathlib.Path, sockets: pathlib.Path
) -> dict[str, object]:
    return {
        "keyring": f"{folder}/ceph.$name.keyring",
        "run_dir": sockets,
        "pid_file": "",
        "log_file": f"{folder}/log/$name.log",
        "admin_socket": f"{sockets}/$name.asok",
        "crash_dir": f"{folder}/crash",
        "log_to_stderr": "false",
        "err_to_stderr": "true",
        # One host is the failure domain, and few placement groups suffice.
        "osd_pool_default_size": settings.replicas,
        "osd_pool_default_min_size": 1,
        "osd_pool_default_pg_num": 8,
        "osd_pool_default_pgp_num": 8,
        "osd_pool_default_pg_autoscale_mode": "off",
        "osd_crush_chooseleaf_type": 0,
    }


def _mon(folder: pathlib.Path) -> dict[str, object]:
    return {
        "mon_data": f"{folder}/mon.$id",
        "mon_cluster_log_file": f"{folder}/log/cluster.log",
        "mon_allow_pool_delete": "true",
        # HEALTH_OK, although the cluster has few OSDs and single copies.
        "mon_allow_pool_size_one": "true",
        "mon_warn_on_pool_no_redundancy": "false",
        "mon_warn_on_insecure_global_id_reclaim": "false",
        "mon_warn_on_insecure_global_id_reclaim_allowed": "false",
        "mon_warn_on_msgr2_not_enabled": "false",
        "mon_warn_on_too_few_osds": "false",
        "mon_data_avail_warn": 2,
        "mon_data_avail_crit": 1,
        "mon_max_pg_per_osd": 2000,
        "mon_pg_warn_min_per_osd": 0,
        "mon_osd_crush_smoke_test": "false",
        # Longer than [nova_rbd] blocklist_seconds, as the documentation asks
        # for, and different, so that tests can tell who listed a client.
        "mon_osd_blocklist_default_expire": 8 * 24 * 3600,
        # By default map changes are batched for 1 s, and the cluster starts
        # in 24 s instead of 5 s.
        "paxos_propose_interval": 0.02,
        "paxos_min_wait": 0.01,
        "mon_tick_interval": 1,
        "mon_mgr_beacon_grace": 30,
        "mgr_initial_modules": "",
    }


def _mgr(folder: pathlib.Path) -> dict[str, object]:
    return {
        "mgr_data": f"{folder}/mgr.$id",
        "mgr_stats_period": 1,
        "mgr_tick_period": 1,
        "mgr_disabled_modules": UNUSED_MGR_MODULES,
    }


def _osd(settings: ClusterSettings, folder: pathlib.Path) -> dict[str, object]:
    return {
        "osd_data": f"{folder}/osd.$id",
        "osd_objectstore": "bluestore",
        "osd_journal": "",
        # After this time a dead client's watch lapses, and with it its
        # exclusive lock.
        "osd_client_watch_timeout": settings.watch_timeout_seconds,
        "osd_op_num_shards": 2,
        "osd_op_num_threads_per_shard": 1,
        # In a pool of single copies, Ceph 16 never ends the state "laggy" of a
        # placement group that gets a request just after its lease has expired.
        # That happened after one in three pauses of 17 s. A lease lasts this
        # many times 20 s, and is renewed in the middle: tests pause for less.
        "osd_pool_default_read_lease_ratio": 50,
        "osd_mon_report_interval": 1,
        "osd_scrub_load_threshold": 0.01,
        # Debian's Ceph 18 and 20 look for it relative to where they start.
        "osd_class_dir": _class_folder(),
        # A write test of some seconds at an OSD's first start (Ceph 17).
        "osd_mclock_skip_benchmark": "true",
        # Linux counts twice this (fs/aio.c, ioctx_alloc) of the 65536 events
        # in fs.aio-max-nr. With Ceph's default, 1024, an OSD beyond the 32nd
        # of a machine can't start.
        "bdev_aio_max_queue_depth": 256,
        # An OSD takes its file for a hard disk. It would pause for 5 s after
        # each object that it frees of a removed snap.
        "osd_snap_trim_sleep_hdd": 0,
        "bluestore_block_create": "true",
        "bluestore_block_size": settings.osd_store_bytes,
        "bluestore_block_preallocate_file": "false",
        "bluestore_cache_autotune": "false",
        "bluestore_cache_size": 64 * MIB,
        # Small write buffers; with the default, their 256 MiB are most of the
        # memory.
        "bluestore_rocksdb_options": (
            "compression=kNoCompression,max_write_buffer_number=4,"
            "min_write_buffer_number_to_merge=1,recycle_log_file_num=4,"
            "write_buffer_size=16777216,writable_file_max_buffer_size=0,"
            "compaction_readahead_size=2097152,max_background_compactions=2"
        ),
    }


def _class_folder() -> pathlib.Path:
    """Return Debian's folder of the OSDs' object classes, as cls_rbd."""
    (found,) = pathlib.Path("/usr/lib").glob("*/rados-classes")
    return found
