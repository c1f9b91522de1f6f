# SPDX-License-Identifier: Apache-2.0

"""Imports go downwards only, without circles, and libraries have their doors.

A room is a folder of the package or one of its modules. Imports for
TYPE_CHECKING, inside a function and by importlib count too.
"""

import ast
import pathlib
import re
import sys

import pytest

NAME = "nova_rbd_backend"
PACKAGE = pathlib.Path(__file__).parents[2] / NAME

# Values import values; the circle test keeps them in order.
VALUES = {
    "errors",
    "image_options",
    "metadata",
    "names",
    "notices",
    "settings",
    "storage_classes",
    "threads",
}
# A flow imports flows of other folders only through these.
FOR_FLOWS = {
    "storage.due",
    "storage.images",
    "storage.journal",
    "storage.fencing",
}
FLOWS = {
    "storage.images",
    "storage.disks",
    "storage.bases",
    "storage.snapshots",
    "storage.survey",
}
# What the layers above the flows import of storage: not storage.process.
STORAGE = {
    *FLOWS,
    "storage.fencing",
    "storage.journal",
    "storage.registry",
    "storage.store",
}
# What every folder of virt may import.
EDGE = {"ceph", "conf", "virt"} | STORAGE
# Room -> the rooms and modules that it may import, beside itself and VALUES.
# Rooms may be nested; a module belongs to the innermost one.
MAY_IMPORT = {
    "": set(),
    **{value: set() for value in VALUES},
    # doors
    "ceph": set(),
    "ceph.comparison": {"ceph"},
    "domains": set(),
    "conf": set(),
    # flows
    "storage": set(),
    "storage.process": set(),
    "storage.registry": {"ceph"},
    "storage.due": {"ceph"},
    "storage.journal": {"ceph", "storage.process", "storage.due"},
    "storage.fencing": {"ceph"},
    "storage.images": {"ceph"} | FOR_FLOWS - {"storage.images"},
    "storage.disks": {"ceph"} | FOR_FLOWS,
    "storage.bases": {"ceph"} | FOR_FLOWS,
    "storage.snapshots": {"ceph"} | FOR_FLOWS,
    "storage.survey": {"ceph"} | FOR_FLOWS,
    "storage.store": {
        "ceph",
        "storage.due",
        "storage.fencing",
        "storage.journal",
        "storage.registry",
    }
    | FLOWS,
    # built on flows
    "checks": {
        "ceph",
        "ceph.comparison",
        "conf",
        "domains",
        "storage.journal",
        "storage.registry",
        "storage.snapshots.make",
    },
    "convert": {"ceph", "domains", "convert.rbd_disk"},
    "convert.rbd_disk": {
        "ceph",
        "storage.disks",
        "storage.fencing",
        "storage.images",
    },
    # called from outside
    "api": {"conf"},
    "cmd": {"ceph", "checks", "conf", "domains"} | STORAGE,
    "cmd.commands": {"ceph", "checks", "cmd", "convert", "domains"} | STORAGE,
    "virt": {
        "checks",
        "domains",
        "virt.background",
        "virt.boot",
        "virt.moves",
        "virt.pools",
        "virt.snapshot",
    }
    | EDGE,
    "virt.background": EDGE,
    "virt.pools": EDGE,
    "virt.boot": {"virt.background", "virt.pools"} | EDGE,
    "virt.moves": {"virt.pools"} | EDGE,
    "virt.snapshot": {"domains", "virt.background"} | EDGE,
}
# Outside library -> the folders and modules that import it.
DOORS = {
    "nova": {"api", "virt"},
    "os_vif": {"virt.guard"},
    "libvirt": {"domains", "virt.snapshot.frozen"},
    "lxml": {"domains"},
    "rados": {
        "ceph.access",
        "ceph.cluster",
        "ceph.connection",
        "ceph.directory",
        "ceph.headers",
        "ceph.holders",
        "ceph.keys",
        "ceph.objects",
    },
    "rbd": {"ceph.comparison", "ceph.image", "ceph.pool", "ceph.trash"},
    # threads takes parts of eventlet only if it is loaded already: importing
    # it raises where Nova 33 and 34 use native threads.
    "eventlet": {"threads"},
    "cliff": {"cmd"},
    "oslo_config": {"checks.run", "cmd", "conf"},
    "oslo_log": {"virt"},
    "oslo_utils": {"conf", "virt"},
    "oslo_concurrency": {"virt.boot.bases", "virt.boot.nova_fetch"},
    "keystoneauth1": {"cmd.clouds", "virt.snapshot.glance"},
    "openstack": {"cmd.clouds"},
    "glanceclient": {"virt.snapshot.glance"},
    "tenacity": {"storage.images.discard", "virt"},
}


def _modules():
    """Return the source of each module, by its name inside the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = path.read_text()
    return found


def _imported(source):
    """Yield a module's imports as (module, name in it or None)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from ((node.module, alias.name) for alias in node.names)
        elif _is_import_module(node):
            yield node.args[0].value, None


def _is_import_module(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and isinstance(node.args[0], ast.Constant)
    )


def _graph(modules):
    """Return module -> the modules of this package that it imports."""
    return {
        module: {
            _target(imported, name, modules)
            for imported, name in _imported(source)
            if imported.split(".")[0] == NAME
        }
        for module, source in modules.items()
    }


def _target(imported, name, modules):
    """Return the imported module, whether or not it exists."""
    module = imported.removeprefix(NAME).lstrip(".")
    inner = f"{module}.{name}".lstrip(".")
    return inner if inner in modules else module


def _libraries(modules):
    """Return outside library -> the modules that import it."""
    found = {}
    for module, source in modules.items():
        for imported, _ in _imported(source):
            library = imported.split(".")[0]
            if library != NAME and library not in sys.stdlib_module_names:
                found.setdefault(library, set()).add(module)
    return found


def _room(module, table):
    while module not in table:
        module = module.rpartition(".")[0]
    return module


def _upward(graph, table):
    """Return the imports that the table does not allow."""
    return sorted(
        (module, imported)
        for module, all_imported in graph.items()
        for imported in all_imported
        if not {_room(imported, table), imported}
        & {*table[_room(module, table)], _room(module, table), *VALUES}
    )


def _circles(graph):
    """Return the groups of modules that import each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(graph.get(module, ())):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def _is_within(module, place):
    return f"{module}.".startswith(f"{place}.")


MODULES = _modules()
GRAPH = _graph(MODULES)
LIBRARIES = _libraries(MODULES)


def test_imports_go_downwards():
    assert _upward(GRAPH, MAY_IMPORT) == []


def _imports_of_inner_modules(package, graph):
    """Return the imports of a package's modules from outside of it."""
    return sorted(
        (module, imported)
        for module, all_imported in graph.items()
        for imported in all_imported
        if imported.startswith(f"{package}.")
        and not _is_within(module, package)
    )


def test_conf_is_imported_only_as_a_whole():
    assert _imports_of_inner_modules("conf", GRAPH) == []


def test_imports_of_inner_modules_are_found():
    graph = {
        "virt": {"conf", "conf.mapping", "confx.y"},
        "conf": {"conf.mapping"},
        "conf.mapping": {"conf.options"},
    }
    found = _imports_of_inner_modules("conf", graph)
    assert found == [("virt", "conf.mapping")]


def test_no_circles():
    assert _circles(GRAPH) == []


def test_each_imported_module_exists():
    for module, imported in GRAPH.items():
        assert imported <= set(MODULES), module


@pytest.mark.parametrize("library", sorted(DOORS))
def test_library_is_imported_through_its_doors(library):
    modules, doors = LIBRARIES[library], DOORS[library]
    for module in modules:
        assert any(_is_within(module, door) for door in doors), module
    for door in doors:
        assert any(_is_within(module, door) for module in modules), door


def test_each_library_has_doors():
    assert set(LIBRARIES) == set(DOORS)


def test_table_has_each_room_and_no_other():
    folders = {
        module
        for module in MODULES
        if any(other.startswith(f"{module}.") for other in MODULES)
    }
    alone = {
        module
        for module in MODULES
        if module.rpartition(".")[0] in ("", "storage")
    }
    rooms = set(MAY_IMPORT)
    assert (folders | alone) - rooms == set(), "not in the table"
    named = rooms.union(*MAY_IMPORT.values())
    assert named - set(MODULES) == set(), "only in the table"


@pytest.mark.parametrize(
    "source",
    [
        "from nova_rbd_backend import errors",
        "from nova_rbd_backend.errors import NotFound",
        "import nova_rbd_backend.errors",
        "if TYPE_CHECKING:\n    from nova_rbd_backend.errors import Error",
        "def late():\n    from nova_rbd_backend import errors",
        "importlib.import_module('nova_rbd_backend.errors')",
    ],
)
def test_each_kind_of_import_is_found(source):
    modules = {"names": source, "errors": ""}
    assert _graph(modules) == {"names": {"errors"}, "errors": set()}
    assert _libraries(modules) == {}


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="relative import"):
        _graph({"names": "from . import errors"})


def test_import_of_a_missing_module_is_found():
    source = "importlib.import_module('nova_rbd_backend.virt.gone')"
    assert _graph({"virt": source}) == {"virt": {"virt.gone"}}


def test_upward_imports_are_found():
    table = {"errors": set(), "ceph": set(), "ceph.a": {"b"}, "b": {"ceph.z"}}
    graph = {
        "errors": {"ceph.x"},  # upwards
        "ceph.x": {"ceph.y", "errors"},
        "ceph.y": {"ceph.a"},  # into an inner room
        "ceph.z": set(),
        "ceph.a": {"b", "ceph.y"},  # out of the inner room
        "b": {"ceph.x", "ceph.z"},  # only one module is allowed
    }
    assert _upward(graph, table) == [
        ("b", "ceph.x"),
        ("ceph.a", "ceph.y"),
        ("ceph.y", "ceph.a"),
        ("errors", "ceph.x"),
    ]


def test_circles_are_found():
    graph = {
        "a": {"b"},
        "b": {"c", "d"},
        "c": {"a"},
        "d": {"e"},
        "e": {"d"},
        "f": {"a", "d"},
    }
    assert _circles(graph) == [["d", "e"], ["a", "b", "c"]]
    assert _circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


# They open images for writing that no guest has: drafts, bases and probes.
OPEN_THEIR_OWN = {
    "ceph.comparison.run",
    "ceph.pool",
    "checks.ceph",
    "checks.glance",
    "convert.rbd_disk",
    "storage.bases.make",
    "storage.disks.provision",
    "storage.images.draft",
    "storage.snapshots.make",
}


# It is called while a guest is frozen, and its caller has fenced.
FENCED_BEFORE = {"storage.images.source_snap"}


def test_images_of_others_are_opened_by_fencing():
    """Else librbd breaks a dead client's lock as it likes."""
    found = {
        module
        for module, source in MODULES.items()
        if re.search(r"\bread_only=False", source)
    }
    assert found == OPEN_THEIR_OWN | FENCED_BEFORE | {"storage.fencing"}


# The one module that knows the bytes and names of Ceph's objects.
LAYOUTS = "ceph.layouts"
_PACKS = re.compile(r"\b(struct|from_bytes|to_bytes)\b")
# Whole string constants, or those before and after a value in an f-string.
_OF_CEPH = re.compile(
    r"rbd_(directory|trash|info|namespace|mirroring|lock|children)"
    r"|rbd_(header|id|data|object_map)\..*"
    r"|(name|id|metadata|image|snap_children|stripe)_|lock\."
    r"|_timestamp"
)


def _byte_layouts(source):
    """Return how a module packs bytes or names keys of Ceph's objects."""
    tree = ast.parse(source)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and isinstance(node.body[:1] and node.body[0], ast.Expr)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docs:
            text = node.value
            if isinstance(text, bytes):
                text = text.decode(errors="replace")
            if isinstance(text, str) and _OF_CEPH.fullmatch(text):
                found.add(text)
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute):
            found.update(_PACKS.findall(ast.unparse(node)))
    return found


def test_one_module_knows_the_bytes_of_ceph():
    for module, source in MODULES.items():
        if module != LAYOUTS:
            assert _byte_layouts(source) == set(), module


def test_module_of_layouts_is_pure():
    assert GRAPH[LAYOUTS] == set()
    assert not any(LAYOUTS in modules for modules in LIBRARIES.values())


@pytest.mark.parametrize(
    "source",
    [
        "import struct",
        "from struct import pack",
        "int.from_bytes(value)",
        "number.to_bytes(8)",
        "key = f'name_{image}'",
        "key = f'{what}_timestamp'",
        "key = 'rbd_directory'",
        "key = b'rbd_header.1a'",
        "key.removeprefix('metadata_')",
    ],
)
def test_each_kind_of_byte_layout_is_found(source):
    assert _byte_layouts(source)
    assert not _byte_layouts(f'"""{source}"""')
