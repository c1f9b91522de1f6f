# SPDX-License-Identifier: Apache-2.0

"""A server that ran on another host, with what the driver reads of it."""

import types
import uuid


def moved_server(flavor, **more):
    """Return a server of host ``source``; ``more`` adds to its fields."""
    return types.SimpleNamespace(
        uuid=str(uuid.uuid4()),
        project_id="p" * 32,
        os_type=None,
        vm_mode=None,
        vm_state="active",
        task_state=None,
        launched_at="then",
        host="source",
        flavor=flavor,
        old_flavor=flavor,
        get_flavor=lambda: flavor,
        migration_context=None,
        **more,
    )
