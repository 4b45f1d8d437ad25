"""Finds a function that the user wrote, in a package or in a file; whatever keeps it from loading becomes one line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from omnistage.data.errors import InputError, unknown_name


def function_of_module(module_name: str, attribute: str, what: str) -> Any:
    """`attribute` of an importable module; `what` it is goes into errors; `InputError` when either is missing or the import fails."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(f"{what} '{module_name}:{attribute}': {module_name!r} is neither a module nor a .py file")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        file = f"{module_name.replace('.', '/')}.py"
        hint = f"; for the file write '{file}:{attribute}'" if Path(file).is_file() else ""
        raise InputError(f"{what} '{module_name}:{attribute}' cannot be imported: {one_line(error)}{hint}") from error
    return _attribute(module, attribute, module_name, what)


def function_of_file(path: str, attribute: str, what: str) -> Any:
    """`attribute` of a Python file, which is run once a process and may import what lies beside it; `InputError` when it cannot."""
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(f"{what} '{path}:{attribute}': file {path!r} does not exist or is no file")
    name = f"omnistage_{what}_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        try:
            _run(file, name)
        except (Exception, SystemExit) as error:
            raise InputError(f"{what} '{path}:{attribute}' cannot be loaded: {one_line(error)}") from error
    return _attribute(sys.modules[name], attribute, path, what)


def _run(file: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up while it runs.
    sys.modules[name] = module
    try:
        with _beside(file):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


@contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Modules that lie beside the file can be imported meanwhile."""
    folder = str(file.parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        # The file may have changed the path itself; only the last of equal entries is ours.
        places = [at for at, entry in enumerate(sys.path) if entry == folder]
        if places:
            del sys.path[places[-1]]


def _attribute(module: ModuleType, attribute: str, place: str, what: str) -> Any:
    if not hasattr(module, attribute):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise InputError(f"{what} '{place}:{attribute}': {unknown_name('function', attribute, own)}")
    return getattr(module, attribute)


def one_line(error: BaseException) -> str:
    """The type and the text of an exception, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def raised_at(error: Exception) -> str:
    """The file and the line that an exception comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no line"
