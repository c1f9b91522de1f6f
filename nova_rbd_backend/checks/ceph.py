# SPDX-License-Identifier: Apache-2.0

"""Is the cluster ready for instances' disks? Ask before any disk is made.

The user's rights are not read from its caps, which have many forms and may not
be readable. Instead, the checks try on an image of their own what a boot does.
"""

import contextlib
import dataclasses
import datetime
import functools
import json
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.comparison import run as comparison
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks.layouts import Layouts
from nova_rbd_backend.checks.steps import Step
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import registry
from nova_rbd_backend.storage_classes import DEFAULT

#: The names of images that a check makes for a moment begin with this.
PROBE_PREFIX = "nova-rbd-check"
PROBE_BYTES = 4 << 20
_PROBE = re.compile(rf"{PROBE_PREFIX}\..+\.[0-9a-f-]{{36}}")
_LONGEST_CHECK = datetime.timedelta(hours=1)
#: The name of the check that all others need.
LOGIN = "Ceph cluster"

_ERASURE = 3  # osd_types.h, pg_pool_t::TYPE_ERASURE
_OVERWRITES = "ec_overwrites"  # in `osd pool ls detail`; osd_types.h
_FULL = {"full", "full_quota"}  # of flags_names, too
#: Health checks that may explain why OSDs give no answer.
_EXPLAINS = {
    "OSDMAP_FLAGS",
    "OSD_DOWN",
    "PG_AVAILABILITY",
    "PG_DEGRADED",
    "SLOW_OPS",
}
_CAPS_ADVICE = "give it the caps that etc/ceph/client.nova.keyring lists"


def steps(settings: Settings) -> Iterator[Step]:
    """Yield checks that prove that disks can be made, written and deleted.

    Each probe runs off the event loop and blocks for at most the time limits
    of the settings. The probes of rights make an image in each pool,
    and remove it again.
    """
    ceph = cluster.connect(settings.cluster)
    for step in _steps(settings, ceph):
        probe = functools.partial(threads.run, step.probe)
        yield dataclasses.replace(step, probe=probe)


def _steps(settings: Settings, ceph: cluster.Cluster) -> Iterator[Step]:
    yield Step(LOGIN, lambda: _check_login(ceph, settings))
    # Where classes share a pool, the option of the first class is named.
    pools: dict[str, str] = {}
    data_pools: dict[str, str] = {}
    for each in settings.classes:
        group = each.image_options.group
        is_default = each.name == DEFAULT
        option = "libvirt_images_store" if is_default else f"[{group}] pool"
        pools.setdefault(each.pool, option)
        if data_pool := each.image_options.data_pool:
            data_pools.setdefault(data_pool, f"[{group}] data_pool")
    disk_pools, snapshot_pool = list(pools), settings.snapshot_pool
    pools.setdefault(snapshot_pool, "libvirt_images_snapshot_store")
    for name, option in pools.items():
        probe = functools.partial(_check_pool, ceph, name, option)
        yield Step(pool_step_name(name), probe, (LOGIN,))
    for name, option in data_pools.items():
        probe = functools.partial(_check_data_pool, ceph, name, option)
        yield Step(f"pool {name} for data", probe, (LOGIN,))
    yield Step(
        "blocklist of dead clients",
        lambda: _check_blocklist(ceph, settings),
        (LOGIN,),
    )
    # Each class has its own options, also where classes share a pool.
    for number, each in enumerate(settings.classes):
        named = "" if each.name == DEFAULT else f" (class {each.name})"
        pool = Pool(ceph, each.pool, options=each.image_options)
        name = f"rights for disks in {each.pool}{named}"
        # They are the same in all pools.
        layouts = Layouts(pool, name) if number == 0 else None
        yield Step(
            name,
            functools.partial(_check_rights, pool, settings, "disks", layouts),
            (LOGIN, pool_step_name(each.pool)),
        )
        if layouts is not None:
            yield layouts.step
    yield Step(
        "pools of former storage classes",
        lambda: _check_former(Pool(ceph, disk_pools[0]), disk_pools),
        (LOGIN, pool_step_name(disk_pools[0])),
    )
    if snapshot_pool not in disk_pools:
        yield Step(
            f"rights for snapshots in {snapshot_pool}",
            lambda: _check_rights(
                Pool(ceph, snapshot_pool), settings, "snapshots"
            ),
            (LOGIN, pool_step_name(snapshot_pool)),
        )


def pool_step_name(pool: str) -> str:
    """Return the name of the check that a pool exists."""
    return f"pool {pool}"


def _check_former(home: Pool, configured: Iterable[str]) -> None:
    # They may still have disks. Pools that no longer exist are skipped.
    registry.missing(home, configured)


def _user(settings: Settings) -> str:
    return f"client.{settings.user or 'admin'}"


def _check_login(ceph: cluster.Cluster, settings: Settings) -> None:
    """Refuse settings with which guests would log in without a key.

    Without rbd_user this program logs in as client.admin, if it can read that
    key, whereas QEMU is told to use no authentication at all.
    """
    ceph.fsid()
    methods = ceph.connection().handle.conf_get("auth_client_required") or ""
    if settings.user is None and "none" not in methods:
        raise errors.ConfigError(
            f"the cluster requires authentication ({methods}), but rbd_user "
            "is not set, so guests could not log in: set [DEFAULT] rbd_user "
            "and rbd_secret_uuid"
        )


def _find(ceph: cluster.Cluster, name: str, option: str) -> Any:
    answer = json.loads(ceph.mon_command("osd pool ls", detail="detail"))
    pools = {pool["pool_name"]: pool for pool in answer}
    if name not in pools:
        raise errors.ConfigError(
            f"the cluster has no pool {name!r} ({option}): make it with `ceph "
            f"osd pool create {name}` and `rbd pool init {name}`, or correct "
            "the option"
        )
    # Without it librbd may hang on concurrent first creates (tracker 52537).
    if "rbd" not in pools[name]["application_metadata"]:
        raise errors.ConfigError(
            f"the pool {name!r} ({option}) is not prepared for RBD images: "
            f"run `rbd pool init {name}`"
        )
    return pools[name]


def _check_pool(ceph: cluster.Cluster, name: str, option: str) -> None:
    if _find(ceph, name, option)["type"] == _ERASURE:
        raise errors.ConfigError(
            f"the pool {name!r} is erasure-coded, which cannot keep the names "
            f"of images: set {option} to a replicated pool (the data of new "
            "disks can go to an erasure-coded one: [nova_rbd] data_pool)"
        )


def _check_data_pool(ceph: cluster.Cluster, name: str, option: str) -> None:
    found = _find(ceph, name, option)
    overwrites = _OVERWRITES in found["flags_names"].split(",")
    if found["type"] == _ERASURE and not overwrites:
        raise errors.ConfigError(
            f"the erasure-coded pool {name!r} ({option}) does not allow "
            "overwrites, which disks need: run `ceph osd pool set "
            f"{name} allow_ec_overwrites true`"
        )


def _check_blocklist(ceph: cluster.Cluster, settings: Settings) -> str | None:
    """Doubt that others keep dead clients on the blocklist for long enough.

    QEMU and Ceph's manager break locks by themselves, and what they list stays
    listed for the monitors' default time.
    """
    wanted = settings.blocklist_seconds
    try:
        found = ceph.default_blocklist_seconds()
    except errors.NotPermitted as error:
        raise errors.ConfigError(
            f"{_user(settings)} may not put a dead client on the blocklist, "
            "so a disk stays locked when its host dies: "
            f"{_CAPS_ADVICE} (mon 'profile rbd')"
        ) from error
    if found is not None and found >= wanted:
        return None
    shown = "an unknown time" if found is None else f"{found:g} s"
    return (
        "a dead client whose lock QEMU or Ceph's manager breaks may write "
        f"again after {shown}, not {wanted} s (blocklist_seconds): run `ceph "
        f"config set mon mon_osd_blocklist_default_expire {wanted}`"
    )


def probe_name() -> str:
    """Return a new name for an image of a check."""
    return f"{_own_prefix()}{uuid.uuid4()}"


def _own_prefix() -> str:
    return f"{PROBE_PREFIX}.{socket.gethostname()}."


def shown(pool: Pool) -> str:
    """Return a pool for an error's text, with its data pool."""
    data_pool = pool.options.data_pool
    return repr(str(pool)) + (
        f" with data in {data_pool!r}" if data_pool else ""
    )


def fullness(pool: Pool) -> str | None:
    """Return why nothing can be written to a pool, or its data pool, now.

    A write to a full pool waits until the pool has room again.
    """
    answer = pool.cluster.mon_command("osd pool ls", detail="detail")
    full = [
        found["pool_name"]
        for found in json.loads(answer)
        if found["pool_name"] in (pool.name, pool.options.data_pool)
        and _FULL & set(found["flags_names"].split(","))
    ]
    if not full:
        return None
    return (
        f"pool {full[0]!r} is full (its quota, or its OSDs), so rights in it "
        "were not tried. Servers can be deleted, but no disk can be made, and "
        "guests wait when they write: make room, raise the quota or add OSDs, "
        "and then run `nova-rbd check`"
    )


def why_silent(pool: Pool, error: errors.OperationTimedOut) -> str:
    """Return why a pool may have given no answer, if Ceph knows.

    :param error: of the operation that got no answer
    :raises errors.ConfigError: the cluster reports nothing that explains it,
        so that the user's caps, or this host's network, are the reason
    """
    settings = pool.cluster.settings
    user = f"client.{settings.user or 'admin'}"
    silent = (
        f"Ceph's OSDs gave no answer to {user} in pool {shown(pool)} within "
        f"{settings.operation_timeout_seconds} s ({error.operation})"
    )
    try:
        if full := fullness(pool):
            return full
        checks = json.loads(pool.cluster.mon_command("health"))["checks"]
    except errors.StorageError:
        raise error from None
    said = [
        each["summary"]["message"]
        for code, each in checks.items()
        if code in _EXPLAINS
    ]
    if said:
        return (
            f"{silent}, so rights in it were not tried. The cluster reports: "
            f"{'; '.join(said)}: see `ceph health detail`"
        )
    raise errors.ConfigError(
        f"{silent}, although the monitors answer and report nothing that "
        f"explains it. If {user} has no caps for OSDs (from Ceph 18 on they "
        f"give such a user no answer): {_CAPS_ADVICE}. If it has them, see "
        "whether this host can reach the OSDs (Ceph's public network)"
    ) from error


def _check_rights(
    pool: Pool, settings: Settings, what: str, layouts: Layouts | None = None
) -> str | None:
    if full := fullness(pool):
        return full
    try:
        _try_rights(pool, settings, what, layouts)
    except errors.OperationTimedOut as error:
        return why_silent(pool, error)
    return None


def _try_rights(
    pool: Pool, settings: Settings, what: str, layouts: Layouts | None
) -> None:
    name = probe_name()

    def remove() -> None:
        # A clone of another layout may be left.
        differs = layouts is not None and layouts.difference is not None
        with contextlib.suppress(*((errors.HasSnaps,) if differs else ())):
            pool.remove(name)

    try:
        _create(pool, name)
        with _undone(remove):
            with pool.open(name, read_only=False) as disk:
                _set_conf(pool, disk)
                disk.write(b"probe", 0)
                disk.create_snap("probe")
                with _undone(lambda: disk.remove_snap("probe")):
                    if layouts is not None:
                        layouts.compare(disk, "probe")
            _remove_old(pool, name)
    except errors.NotPermitted as error:
        raise errors.ConfigError(
            f"{_user(settings)} may not make and delete {what} in pool "
            f"{shown(pool)} ({error.operation}): {_CAPS_ADVICE}"
        ) from error


@contextlib.contextmanager
def _undone(undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was made; an error within tells more than one of undo."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(errors.StorageError):
            undo()
        raise
    undo()


def _remove_old(pool: Pool, new: str) -> None:
    """Remove what checks of this host left that died long ago.

    :param new: the image of this check, which the OSDs have just made
    """
    found = pool.directory.ids(_own_prefix())
    for name in filter(_PROBE.fullmatch, found.keys() - {new}):
        now, _ = pool.headers.times(found[new])
        created_at, _ = pool.headers.times(found[name])
        if created_at and now and now - created_at < _LONGEST_CHECK:
            continue  # another check is under way
        # A dead client may still have it open; the next check tries again.
        with contextlib.suppress(errors.StorageError):
            for lock in pool.holders.locks(found[name]):
                pool.holders.break_lock(found[name], lock)
            with pool.open(name, read_only=False) as disk:
                comparison.remove_clone(pool, disk)
                disk.remove_snap("probe")
            pool.remove(name)


def _create(pool: Pool, name: str) -> None:
    try:
        pool.create(name, PROBE_BYTES)
    except (errors.StorageFault, errors.NotSupported) as error:
        given = {
            "object_size": pool.options.object_size_bytes,
            "stripe_unit": pool.options.stripe_unit_bytes,
            "stripe_count": pool.options.stripe_count,
            "image_features": ",".join(pool.options.features),
        }
        said = ", ".join(f"{key} {given[key]}" for key in given if given[key])
        if not said:
            raise
        raise errors.ConfigError(
            f"Ceph makes no image with [{pool.options.group}] {said} "
            f"({error.reason}): correct or remove these"
        ) from error


def _set_conf(pool: Pool, disk: Image) -> None:
    for option, value in pool.options.conf:
        try:
            disk.set_conf(option, value)
        except errors.StorageFault as error:
            raise errors.ConfigError(
                f"[{pool.options.group}] image_conf has {option}:{value}, but "
                "an image cannot have this option or this value: `rbd config "
                f"image ls {pool}/DISK` lists what it can have"
            ) from error
