"""Structure of the package, read from its syntax trees: imports, sizes, inheritance, private names.

``tests/test_walls.py`` holds limits on what is found here.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "discrete_itd"
NAMEDTUPLE = {
    "_replace",
    "_asdict",
    "_fields",
    "_make",
    "_field_defaults",
}  # public in spite of the underscore


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str  # dotted, without the package: "channel.noise"; "" for the package itself
    path: Path
    tree: ast.Module
    is_package: bool

    @property
    def room(self) -> str:
        """The first part of its name: a folder, or a module at the top."""
        return self.name.split(".")[0]


@dataclass(frozen=True)
class House:
    """A package: its modules by name, and what each imports."""

    modules: dict[str, Module]
    inner: dict[str, set[str]] = field(repr=False)  # modules of the package that each imports
    # top names of other packages that each imports
    foreign: dict[str, set[str]] = field(repr=False)

    @classmethod
    def read(cls, checkout: Path) -> "House":
        """Parse the package in a checkout."""
        root = checkout / PACKAGE
        modules = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            text = path.read_text()
            modules[name] = Module(name, path, ast.parse(text), is_package)
        inner: dict[str, set[str]] = {}
        foreign: dict[str, set[str]] = {}
        for name, module in modules.items():
            names = set(imported(module))
            ours = {n for n in names if n.split(".")[0] == PACKAGE}
            inner[name] = {resolve(n, modules) for n in ours} - {name}
            foreign[name] = {n.split(".")[0] for n in names - ours}
        return cls(modules, inner, foreign)

    def at_top(self) -> list[str]:
        """Modules that lie at the top of the package, not in a folder."""
        return [n for n, m in self.modules.items() if n and "." not in n and not m.is_package]

    def arrows(self) -> set[tuple[str, str]]:
        """Pairs of modules of which the first imports the second; the package's own ``__init__`` apart."""
        return {(a, b) for a, targets in self.inner.items() if a for b in targets if b}

    def reached(self, start: str) -> dict[str, list[str]]:
        """Other packages that a module imports, itself or by way of others of this package: each with that way."""
        ways, queue = {start: [start]}, [start]
        found: dict[str, list[str]] = {}
        while queue:
            at = queue.pop(0)
            for name in sorted(self.foreign[at]):
                found.setdefault(name, ways[at])
            parents = {at.rsplit(".", 1)[0]} if "." in at else set()
            for b in sorted(self.inner[at] | parents):
                if b and b not in ways:
                    ways[b] = [*ways[at], b]
                    queue.append(b)
        return found


def imported(module: Module) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it, ``from a import b`` as a.b; what is for types only apart."""
    skipped: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(n) for part in node.body for n in ast.walk(part)}
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [PACKAGE, *[p for p in module.name.split(".") if p]]
                up = node.level - module.is_package
                base = ".".join([*here[: len(here) - up], *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def resolve(dotted: str, modules: dict[str, Module]) -> str:
    """The module of the package that holds an imported name."""
    parts = dotted.split(".")[1:]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def cycles(arrows: set[tuple[str, str]]) -> list[list[str]]:
    """Groups of nodes that reach one another."""
    nodes = sorted({n for arrow in arrows for n in arrow})
    after = {n: {b for a, b in arrows if a == n} for n in nodes}
    reach = {n: set(after[n]) for n in nodes}
    for k in nodes:  # Warshall's algorithm
        for n in nodes:
            if k in reach[n]:
                reach[n] |= reach[k]
    groups = {tuple(m for m in nodes if m in reach[n] and n in reach[m]) for n in nodes}
    return [list(g) for g in sorted(groups) if len(g) > 1]


def classes(house: House) -> dict[str, tuple[Module, ast.ClassDef]]:
    """The classes at the top of modules, by name; names are unique enough in this package."""
    return {
        node.name: (module, node)
        for module in house.modules.values()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }


def depths(house: House) -> dict[str, int]:
    """Inheritance depth of each class within the package.

    It is 0 for a class whose bases are all foreign, and for the contracts of ``denoisers.base``, which add methods to
    one another but hold no implementation.
    """
    known = classes(house)

    def depth(name: str) -> int:
        if known[name][0].name == "denoisers.base":
            return 0
        bases = [ast.unparse(b).split("[")[0].split(".")[-1] for b in known[name][1].bases]
        return max((1 + depth(b) for b in bases if b in known and b != name), default=0)

    return {name: depth(name) for name in known}


def own_names(node: ast.AST) -> set[str]:
    """Names with an underscore that a class defines or assigns to itself."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            found.add(child.name)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            found.add(child.id)
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            found.add(child.attr)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            found.add(child.value)  # register_buffer("_x", ...)
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in NAMEDTUPLE


def foreign_privates(module: Module) -> Iterator[str]:
    """Uses of underscore names that belong to another class or module: ``where: what``.

    Functions of a module may use those of its classes.
    """

    def walk(node: ast.AST, own: set[str]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Attribute)
                and is_private(child.attr)
                and child.attr not in own
            ):
                yield f"{module.name}:{child.lineno}: {ast.unparse(child)[-60:]}"
            if isinstance(child, ast.ImportFrom):
                yield from (
                    f"{module.name}:{child.lineno}: import {alias.name}"
                    for alias in child.names
                    if is_private(alias.name)
                )
            yield from walk(child, own_names(child) if isinstance(child, ast.ClassDef) else own)

    yield from walk(
        module.tree,
        {n for c in module.tree.body if isinstance(c, ast.ClassDef) for n in own_names(c)},
    )


def with_two_meanings(house: House) -> list[str]:
    """Names of classes and types that several modules define for themselves, each with these modules."""
    homes: dict[str, list[str]] = {}
    for name, module in house.modules.items():
        for node in module.tree.body:
            found = None
            if isinstance(node, ast.ClassDef):
                found = node.name
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                is_variable = isinstance(node.value, ast.Call)  # TypeVar(...)
                found = None if is_variable else node.targets[0].id
            if found and found[0].isupper() and not found.isupper():
                homes.setdefault(found, []).append(name)
    return sorted(f"{name}: {', '.join(where)}" for name, where in homes.items() if len(where) > 1)
