"""A folder imported by its bare name is refused, and what must start fast loads nothing heavy. Each check has an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from repository import FOLDERS, ROOT, modules

HEAVY = ("torch", "transformers", "trl", "datasets", "deepspeed")


def _python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("folder", FOLDERS)
def test_bare_name_is_refused(folder: str) -> None:
    done = _python(f"import {folder}")
    assert done.returncode == 1
    assert f"ImportError: import this package as 'omnistage.{folder}', not as '{folder}'" in done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_full_name_is_accepted_from_the_root(folder: str) -> None:
    done = _python(f"import omnistage.{folder} as it; print(it.__name__)")
    assert (done.returncode, done.stdout.strip()) == (0, f"omnistage.{folder}"), done.stderr


IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
names = [package.__name__] + [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(len(names), sorted(set({heavy!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize("folder", ["data", "rewards"])
def test_every_module_of_a_light_folder_loads_nothing_heavy(folder: str) -> None:
    done = _python(IMPORT_ALL.format(package=f"omnistage.{folder}", heavy=HEAVY))
    assert done.returncode == 0, done.stderr
    count, loaded = done.stdout.split(maxsplit=1)
    assert int(count) == len(modules(folder)), "a sub-folder without __init__.py is no package: it is neither walked nor shipped"
    assert loaded.strip() == "[]", f"omnistage.{folder} loads {loaded}"


def test_the_command_line_loads_nothing_heavy() -> None:
    done = _python(f"import sys, omnistage.launch.cli; print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
