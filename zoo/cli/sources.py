"""What classes take and modules hold, read from their sources, as lightning and torch take seconds to import."""

import ast
import functools
import importlib.util
from pathlib import Path


def parameters(class_path: str) -> set[str] | None:
    """Names that a class takes when it is made; None if its source does not say.

    Args:
        class_path: of the file in which it stands.

    Example:
        >>> "max_epochs" in parameters("lightning.pytorch.trainer.trainer.Trainer")
        True
    """
    module, _, name = class_path.rpartition(".")
    for node in _body(module) or ():
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__" and method.args.kwarg is None:
                return {argument.arg for argument in (*method.args.args[1:], *method.args.kwonlyargs)}
    return None


def names(module: str) -> set[str] | None:
    """What a module defines or imports; None if its source does not say.

    Raises:
        ModuleNotFoundError: if there is no such module.
    """
    body = _body(module)
    if body is None:
        raise ModuleNotFoundError(f"there is no module {module}")
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return None if found & {"*", "__getattr__"} else found


@functools.cache
def _body(module: str) -> list[ast.stmt] | None:
    """The statements of a module; None if there is none. Only the package at its top is looked for, nothing is run."""
    package, *further = module.split(".")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place, *further)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return ast.parse(file.read_bytes()).body
    return None
