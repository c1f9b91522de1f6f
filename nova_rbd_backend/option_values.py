# SPDX-License-Identifier: Apache-2.0

"""Options as they are read here."""

import typing

from oslo_config import cfg

from nova_rbd_backend import errors


def get(
    conf: cfg.ConfigOpts, name: str, group: str | None = None
) -> typing.Any:
    """Read an option; a bad value becomes an error that says how to mend."""
    try:
        return conf[group][name] if group else conf[name]
    except ValueError as error:  # oslo_config.cfg.ConfigFileValueError too
        # "Value for option x from LocationInfo(...) is not valid: <reason>"
        reason = str(error).rpartition("is not valid: ")[2]
        raise errors.ConfigError(
            f"[{group or 'DEFAULT'}] {name}: {reason}: correct it, or remove "
            "the option"
        ) from error


def is_given(
    conf: cfg.ConfigOpts, name: str, group: str | None = None
) -> bool:
    """Tell whether somebody set the option, and not only its default."""
    try:
        found = conf.get_location(name, group)
    except ValueError:
        return True
    # None: not set, and the option has no default (oslo.config to 10.7).
    return found is not None and found.location not in (
        cfg.Locations.opt_default,
        cfg.Locations.set_default,
    )
