"""What a clone holds: nothing of the machine it was written on, files that are read in one sitting, and a wheel with all that runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from repository import FOLDERS, ROOT, project_files

MOST_LINES = 600
# The last two are a list of graded strings, one a line, and a generated page of tables to look things up in.
NOT_READ_BY_PEOPLE = {"constraints.txt", "LICENSE", "tests/rewards/answers.json", "docs/recipe.md"}
# Written so that neither matches its own source.
MACHINE_PATH = re.compile(r"(?<![\w.$}*])/(?:work|root|home|Users)/[\w.-]*")
REGISTRY = re.compile(r"pypi[.]org|pythonhosted[.]org|download[.]pytorch|index[-]url|find[-]links|https?://\S*/simple\b")

pytestmark = pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Path to content, of every file of the project that is text."""
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in project_files()}
    return {name: content.decode() for name, content in contents.items() if b"\0" not in content}


def _matches(pattern: re.Pattern[str], texts: dict[str, str]) -> list[str]:
    return [
        f"{name}:{number}: {found.group()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        for found in pattern.finditer(line)
    ]


def test_the_patterns_find_what_they_are_for() -> None:
    lines = ("cd /{}/main".format("work"), "--index" + "-url x", "https://example.com/{}/".format("simple"), "pypi" + ".org")
    bad = {"x": "\n".join(lines)}
    assert [found.split()[0] for found in _matches(MACHINE_PATH, bad)] == ["x:1:"]
    assert [found.split()[0] for found in _matches(REGISTRY, bad)] == ["x:2:", "x:3:", "x:4:"]
    good = {"x": "$HOME/home/a tests/data/work/b ../root/c https://example.com/home/page"}
    assert _matches(MACHINE_PATH, good) == []


def test_no_path_of_a_machine(texts: dict[str, str]) -> None:
    assert _matches(MACHINE_PATH, texts) == []


def test_no_address_of_a_registry(texts: dict[str, str]) -> None:
    assert _matches(REGISTRY, texts) == []


def test_every_file_is_read_in_one_sitting(texts: dict[str, str]) -> None:
    lengths = {name: len(text.splitlines()) for name, text in texts.items() if name not in NOT_READ_BY_PEOPLE}
    assert {name: length for name, length in lengths.items() if length >= MOST_LINES} == {}


def test_constraints_are_names_and_exact_versions_only(texts: dict[str, str]) -> None:
    lines = texts["constraints.txt"].splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==\d[\w.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)


def test_every_direct_dependency_is_pinned_and_torchaudio_is_none(texts: dict[str, str]) -> None:
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {_normal(re.split(r"[<>=!~;\[ ]", requirement)[0]) for requirement in required}
    pinned = {_normal(line.split("==")[0]) for line in texts["constraints.txt"].splitlines()}
    assert names - pinned == set()
    assert "torchaudio" not in names | pinned
    assert "flash-attn" not in names | pinned, "it compiles for many minutes: an extra, never part of `make`"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_holds_every_file_of_the_folders(tmp_path: Path) -> None:
    """Built from a copy, so that nothing stale lies in it; every module, recipe, script and template that is here must be there."""
    copy = tmp_path / "copy"
    shipped = {path.relative_to(ROOT) for path in project_files() if path.relative_to(ROOT).parts[0] in FOLDERS}
    for file in shipped | {Path(name) for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md")}:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, copy / file)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {Path("omnistage") / file for file in shipped} == {path for path in held if path.parts[0] == "omnistage"}
    assert {path.parts[0].split("-")[0] for path in held} == {"omnistage"}, "something else than the package would be installed"


def test_recipes_and_type_marks_are_among_the_shipped_files(texts: dict[str, str]) -> None:
    assert [name for name in texts if re.fullmatch(r"stages/recipe/shipped/[\w.-]+\.yaml", name)]
    present = {path.relative_to(ROOT).as_posix() for path in project_files()}
    assert {f"{folder}/py.typed" for folder in FOLDERS} - present == set()
