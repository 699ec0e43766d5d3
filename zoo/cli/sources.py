"""What classes take and modules hold, read from their sources, since lightning and torch take seconds to import."""

import ast
import functools
import importlib.util
from pathlib import Path


def parameters(class_path: str) -> set[str] | None:
    """Names of the arguments of a constructor or function; None if its source does not say.

    Args:
        class_path: path in the module that defines it, or in a module that imports it from there.

    Example:
        >>> "max_epochs" in parameters("lightning.pytorch.trainer.trainer.Trainer")
        True
        >>> sorted(parameters("zoo.particlenet.particlenet_lite"))
        ['input_dim', 'num_classes']
    """
    module, _, name = class_path.rpartition(".")
    for node in (_body(module) if module else None) or ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _arguments(node, 0)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _parameters_of_class(node)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return parameters(f"{node.module}.{alias.name}")
    return None


def _parameters_of_class(node: ast.ClassDef) -> set[str] | None:
    """Those of its own constructor, or the fields of a dataclass without parents; others are not searched."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return _arguments(method, 1)
    if not node.bases and any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
        return {field.id for field in fields if isinstance(field, ast.Name)}
    return None


def _arguments(node: ast.FunctionDef, first: int) -> set[str] | None:
    if node.args.kwarg is not None:
        return None
    return {argument.arg for argument in (*node.args.args[first:], *node.args.kwonlyargs)}


def names(module: str) -> set[str] | None:
    """Names that a module defines or imports; None if its source does not say.

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
    """The statements of a module; None if there is none. Only its top-level package is looked up; nothing is run."""
    package, *further = module.split(".")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place, *further)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return ast.parse(file.read_bytes()).body
    return None
