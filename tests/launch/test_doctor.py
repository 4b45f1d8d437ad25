"""`omnistage doctor` finds what is really there: on this machine as it is, and with faults that are put in its way."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnistage.launch import cli, doctor
from omnistage.launch.doctor import Finding

CHECKS = {"python", "packages", "gpu", "optional", "decoders", "compiler", "disk", "memory", "limits", "hub", "vllm"}


def test_this_machine_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--run-dir", str(tmp_path / "runs" / "new"), "--json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert {one["check"] for one in found} == CHECKS
    assert code == int(any(one["level"] == "fault" for one in found))
    by_check = {one["check"]: one for one in found}
    assert by_check["packages"]["level"] == "ok"
    assert "a clip of 16 frames with sound decodes" in by_check["decoders"]["said"] or by_check["decoders"]["level"] == "note"
    assert str(tmp_path / "runs" / "new") in by_check["disk"]["said"]
    assert not (tmp_path / "runs").exists()
    for one in found:
        assert "\n" not in one["said"]
        # Every fault says what mends it.
        assert one["level"] != "fault" or one["mend"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Findings with an older TRL and a flash-attn that was built for another torch in front of the real packages, no compiler, and more
    threads than cores."""
    folder = tmp_path_factory.mktemp("site")
    for name, version in (("trl", "1.15.0"), ("flash_attn", "2.8.3")):
        about = folder / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    (folder / "flash_attn.py").write_text("raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c105Error')\n")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": str(folder), "OMP_NUM_THREADS": "999"}
    command = [sys.executable, "-m", "omnistage.launch", "doctor", "--json", "--run-dir", str(folder)]
    done = subprocess.run(command, env=os.environ | changed, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def finding(found: list[dict[str, Any]], check: str, said: str) -> dict[str, Any]:
    (one,) = [each for each in found if each["check"] == check and said in each["said"]]
    return one


def test_a_package_outside_its_range_is_a_fault(broken: list[dict[str, Any]]) -> None:
    one = finding(broken, "packages", "trl is 1.15.0, needed is ==1.16.*")
    assert (one["level"], one["mend"]) == ("fault", "pip install 'trl==1.16.*'")


def test_an_optional_package_that_does_not_import_is_a_fault(broken: list[dict[str, Any]]) -> None:
    one = finding(broken, "optional", "flash-attn 2.8.3 does not import: ImportError: flash_attn_2_cuda.so: undefined symbol")
    assert one["level"] == "fault"
    assert one["mend"].startswith("pip uninstall flash-attn; pip install")


def test_what_would_be_better_is_a_note(broken: list[dict[str, Any]]) -> None:
    missing = "g++" if importlib.util.find_spec("ninja") else "g++ and ninja"
    compiler = finding(broken, "compiler", f"{missing} not found")
    threads = finding(broken, "limits", "OMP_NUM_THREADS is 999")
    assert (compiler["level"], threads["level"]) == ("note", "note")
    assert threads["mend"].startswith("export OMP_NUM_THREADS=")


def test_a_check_that_breaks_is_a_fault_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_memory", lambda: iter([1 / 0]))
    for heavy in ("_gpus", "_optional", "_decoders"):
        monkeypatch.setattr(doctor, heavy, lambda: iter(()))
    found = list(doctor.examine(tmp_path))
    assert Finding("memory", "fault", "the check itself failed: ZeroDivisionError: division by zero") in found
    assert found[-1].check == "hub"
