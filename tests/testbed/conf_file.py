# SPDX-License-Identifier: Apache-2.0

"""oslo.config files as nested dicts: {section: {option: value}}."""

import pathlib
from collections.abc import Mapping

Conf = Mapping[str, Mapping[str, object]]


def merged(*layers: Conf) -> dict[str, dict[str, object]]:
    """Merge the layers; a later one overrides those before it."""
    result: dict[str, dict[str, object]] = {}
    for layer in layers:
        for section, options in layer.items():
            result.setdefault(section, {}).update(options)
    return result


def write(path: pathlib.Path, *layers: Conf) -> pathlib.Path:
    """Write the merged layers; an option that is None is left out.

    The file is readable by its owner only, because it holds passwords.
    """
    lines = []
    for section, options in merged(*layers).items():
        lines.append(f"[{section}]")
        lines += [
            f"{name} = {_text(value)}"
            for name, value in options.items()
            if value is not None
        ]
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("\n".join(lines))
    return path


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # "$" would be taken for a reference to another option.
    return str(value).replace("$", "$$")
