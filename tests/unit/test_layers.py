# SPDX-License-Identifier: Apache-2.0

"""Imports go downwards only, and each outside library has its door."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "nova_rbd_backend"
MODULES = sorted(PACKAGE.rglob("*.py"))

VALUES = {
    "metadata",
    "names",
    "image_options",
    "storage_classes",
    "errors",
}
# Room -> the rooms of this package it may import.
BELOW = {
    "cmd": {"cmd", "convert", "virt", "storage", "conf", *VALUES},
    "api": {"api", "conf", *VALUES},
    "convert": {"convert", "storage", *VALUES},
    "virt": {"virt", "storage", "conf", *VALUES},
    "storage": {"storage", *VALUES},
    "conf": {
        "options",
        "class_options",
        "option_values",
        "image_options",
        "storage_classes",
        "errors",
    },
    "options": {"class_options"},
    "class_options": set(),
    "option_values": {"errors"},
    "metadata": {"names", "errors"},
    "names": {"errors"},
    "image_options": {"errors"},
    "storage_classes": {"image_options", "errors"},
    "errors": set(),
    "__init__": set(),
}
# Outside library -> the only rooms or modules that may import it.
DOORS = {
    "nova": {"virt", "api"},
    "os_vif": {"virt"},
    "libvirt": {"virt", "cmd", "convert"},
    "lxml": {"virt", "convert", "cmd"},
    "cliff": {"cmd"},
    "oslo_config": {
        "options",
        "class_options",
        "option_values",
        "conf",
        "virt",
        "cmd",
    },
    "openstack": {"cmd"},
    "keystoneauth1": {"virt", "cmd"},
    "oslo_log": {"virt", "cmd"},
    "glanceclient": {"virt"},
    "rados": {
        f"storage.{name}"
        for name in (
            *("closer", "cluster", "login", "pool_objects"),
            *("image_headers", "image_holders", "image_ids"),
        )
    },
    "rbd": {"storage.disk", "storage.open_image", "storage.pool"},
    # Only parts of an eventlet that somebody else loaded: importing it raises
    # where Nova 33 and 34 use native threads.
    "eventlet": {"storage.offload"},
}


def _room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _module(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _imports(path):
    """Return the full names of all that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{a.name}" for a in node.names)
        elif _is_import_module(node):
            yield node.args[0].value


def _is_import_module(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and isinstance(node.args[0], ast.Constant)
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_go_downwards(path):
    room = _room(path)
    for name in _imports(path):
        top, *rest = name.split(".")
        if top == "nova_rbd_backend":
            assert rest[0] in BELOW[room], f"{path} imports {name}"
        elif top in DOORS:
            allowed = DOORS[top] & {room, _module(path)}
            assert allowed, f"{path} imports {name}"


def test_all_modules_are_seen():
    assert {_room(path) for path in MODULES} == set(BELOW)
