# SPDX-License-Identifier: Apache-2.0

"""A key manager for nova-compute that keeps passphrases in files.

It stands in for Barbican, for all hosts of a testbed, and asks nobody who they
are: what a user or an administrator may read cannot be tested with it.
"""

import pathlib
import tempfile
import uuid
from typing import Any

from castellan.common import exception
from castellan.common.objects import passphrase
from castellan.key_manager import key_manager

FOLDER = pathlib.Path(tempfile.gettempdir()) / "nova-rbd-testbed" / "keys"


class FileKeys(key_manager.KeyManager):
    """``[key_manager] backend = file_keys.FileKeys``."""

    def __init__(self, configuration: Any = None) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)

    def store(
        self, context: Any, managed_object: Any, expiration: Any = None
    ) -> str:
        name = str(uuid.uuid4())
        data = managed_object.get_encoded()
        text = data.decode() if isinstance(data, bytes) else data
        (FOLDER / name).write_text(text)
        return name

    def get(
        self, context: Any, managed_object_id: str, metadata_only: bool = False
    ) -> passphrase.Passphrase:
        try:
            text = (FOLDER / managed_object_id).read_text()
        except FileNotFoundError:
            raise _no(managed_object_id) from None
        return passphrase.Passphrase(text)

    def delete(
        self, context: Any, managed_object_id: str, force: bool = False
    ) -> None:
        try:
            (FOLDER / managed_object_id).unlink()
        except FileNotFoundError:
            raise _no(managed_object_id) from None

    def _not_needed(self, *_arguments: Any, **_more: Any) -> Any:
        raise NotImplementedError

    create_key = create_key_pair = copy = list = _not_needed
    add_consumer = remove_consumer = _not_needed


def _no(name: str) -> Exception:
    return exception.ManagedObjectNotFoundError(uuid=name)
