"""Maps the folders at the top of the repository to `omnistage.*`; everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = ("data", "rewards", "rl", "stages", "launch")
ROOT = Path(__file__).resolve().parent

packages = []
package_data = {}
for folder in FOLDERS:
    packages.append(f"omnistage.{folder}")
    packages += [f"omnistage.{folder}.{name}" for name in find_packages(str(ROOT / folder))]
    files = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file())
    package_data[f"omnistage.{folder}"] = [str(file) for file in files if file.suffix not in {".py", ".pyc"}]

setup(
    packages=packages,
    package_dir={f"omnistage.{folder}": folder for folder in FOLDERS},
    package_data=package_data,
)
