"""What this machine has, what is missing, and the command that mends it: `omnistage doctor`.

Every check looks at the real thing: packages against the versions that this package asks for, a clip that is encoded and decoded here, the
disk and the shared memory that a run would write to. A finding is `ok`, `note` (a run works, something would be better or is not there),
or `fault` (a run fails, or fails later).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omnistage.data.errors import MediaError
from omnistage.data.user_code import one_line

Level = Literal["ok", "note", "fault"]
GB = 1e9
# A 7B model's checkpoint with its optimizer takes more; a LoRA stage's far less.
LEAST_DISK_GB = 20.0
# NCCL and the loaders of several processes exchange through it; Docker gives 64 MB where nothing is said.
LEAST_SHM_GB = 1.0
LEAST_FILES = 4096
# Optional packages: what each is for, and how it is had.
OPTIONAL = {
    "flash-attn": ("flash_attn", "faster attention on GPUs (model.attention: flash_attention_2)", "pip install -e '.[flash]'"),
    "smplx": ("smplx", "your own SMPL or SMPL-X body (predict --body)", "pip install -e '.[smpl]'"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of what was found; `mend` is the command or the setting that mends it, where there is one."""

    check: str
    level: Level
    said: str
    mend: str | None = None


def examine(run_dir: Path) -> Iterator[Finding]:
    """Every finding, in the order in which they matter. A check that fails by itself is a fault of its own, and the others go on."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("gpu", _gpus),
        ("optional", _optional),
        ("vllm", _vllm),
        ("decoders", _decoders),
        ("compiler", _compiler),
        ("disk", lambda: _disk(run_dir)),
        ("memory", _memory),
        ("limits", _limits),
        ("hub", _hub),
    ]
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 -- whatever is broken here is what is looked for
            yield Finding(name, "fault", f"the check itself failed: {one_line(error)}")


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}")


def _packages() -> Iterator[Finding]:
    """Every package that this one needs, against the versions that it was tested with."""
    from packaging.requirements import Requirement

    wrong: list[Finding] = []
    right: list[str] = []
    for text in importlib.metadata.requires("omnistage") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            there = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(Finding("packages", "fault", f"{needed.name} is missing", f"pip install '{needed}'"))
            continue
        if not needed.specifier.contains(there, prereleases=True):
            told = f"{needed.name} is {there}, needed is {needed.specifier}"
            wrong.append(Finding("packages", "fault", told, f"pip install '{needed}'"))
        else:
            right.append(needed.name)
    if importlib.util.find_spec("torchaudio") is not None:
        told = "torchaudio is installed; sound is read with PyAV, and its builds break transformers where they do not fit torch"
        wrong.append(Finding("packages", "note", told, "pip uninstall torchaudio"))
    shown = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "trl", "deepspeed") if name in right
    )
    yield Finding("packages", "ok", f"{len(right)} packages as needed ({shown})")
    yield from wrong


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi")
        if torch.version.cuda is None:
            yield Finding("gpu", "note", "torch is built without CUDA: runs on the CPU", "pip install torch torchvision")
        elif driver is not None:
            told = f"there is a driver, and torch {torch.__version__} (CUDA {torch.version.cuda}) sees no device"
            yield Finding("gpu", "fault", told, "nvidia-smi; echo $CUDA_VISIBLE_DEVICES; a driver for CUDA " + str(torch.version.cuda))
        else:
            yield Finding("gpu", "note", "no GPU: the tiny model trains here, the 3B and 7B models do not")
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        level: Level = "ok" if free > 0.9 * total else "note"
        told = f"{index}: {about.name}, {free / GB:.0f} of {total / GB:.0f} GB free, compute capability {about.major}.{about.minor}"
        yield Finding("gpu", level, told, None if level == "ok" else "nvidia-smi (another process holds memory)")
        if about.major < 8:
            told = f"{index}: {about.name} has no bfloat16 units; float16 overflows in GRPO"
            yield Finding("gpu", "fault", told, "model.dtype=float32, or a GPU of the Ampere generation or later")
    if torch.cuda.device_count() > 1:
        version = ".".join(map(str, torch.cuda.nccl.version()))
        yield Finding("gpu", "ok", f"{torch.cuda.device_count()} GPUs, NCCL {version}")


def _optional() -> Iterator[Finding]:
    import torch

    for name, (module, purpose, how) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Finding("optional", "note", f"{name} is not installed: {purpose}", how)
            continue
        # Built for another torch it is installed and does not import. In a process of its own: a bad build may end it.
        tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=300, check=False)
        if tried.returncode:
            last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
            mend = f"pip uninstall {name}; {how} (it is built for the torch that is installed then: {torch.__version__})"
            yield Finding("optional", "fault", f"{name} {importlib.metadata.version(name)} does not import: {last}", mend)
        else:
            yield Finding("optional", "ok", f"{name} {importlib.metadata.version(name)}: {purpose}")


def _decoders() -> Iterator[Finding]:
    """A clip with picture and sound is encoded and decoded again, by decord and by PyAV."""
    import numpy as np

    from omnistage.data import media
    from omnistage.data.media import MediaLimits
    from omnistage.data.records import MediaRef
    from omnistage.data.synth.encode import write_clip

    frames = np.zeros((16, 56, 56, 3), np.uint8)
    frames[:, :, 28:] = 200
    sound = (0.3 * np.sin(np.arange(16000) * 0.17)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="omnistage-") as name:
        path = Path(name) / "clip.mp4"
        try:
            write_clip(path, frames, sound)
            clip = media.decode(MediaRef("video", str(path), sound=str(path)), MediaLimits(fps=2.0, max_frames=4))
        except (MediaError, OSError, ValueError) as error:
            yield Finding(
                "decoders", "fault", f"a clip cannot be encoded and decoded: {one_line(error)}", "pip install --force-reinstall av"
            )
            return
        seen, heard = clip.frames, clip.sound
        good = seen is not None and heard is not None and abs(float(seen[..., 40:, :].mean()) - 200) < 10 and float(abs(heard).max()) > 0.1
        if not good:
            yield Finding("decoders", "fault", "a clip that was encoded here decodes to another picture or sound", "pip install av")
            return
        try:
            import decord
        except (ImportError, OSError) as error:
            told = f"PyAV decodes; decord does not import ({one_line(error)}), so that videos are read some times slower"
            yield Finding("decoders", "note", told, "pip install decord" if platform.machine() == "x86_64" else None)
            return
        read = decord.VideoReader(str(path))
        yield Finding("decoders", "ok", f"a clip of {len(read)} frames with sound decodes by decord {decord.__version__} and PyAV")


def _vllm() -> Iterator[Finding]:
    """Whether a stage may have `rollout.engine: vllm`; no run needs it."""
    from omnistage.rl.vllm_rollout import requirements

    version = requirements.installed()
    if version is None:
        yield Finding("vllm", "ok", "vLLM is not installed; completions are drawn by the policy (rollout.engine: policy)")
    elif not requirements.fits(version):
        told = f"vLLM is {version}, and rollout.engine: vllm takes {requirements.VERSIONS}"
        yield Finding("vllm", "note", told, requirements.INSTALL)
    else:
        yield Finding("vllm", "ok", f"vLLM {version} for rollout.engine: vllm")


def _compiler() -> Iterator[Finding]:
    missing = [name for name in ("g++", "ninja") if shutil.which(name) is None and not (name == "ninja" and _has_ninja())]
    if missing:
        told = f"{' and '.join(missing)} not found: DeepSpeed (zero2, zero3) builds its operators on first use"
        yield Finding("compiler", "note", told, "apt-get install g++ ninja-build")
    else:
        yield Finding("compiler", "ok", "g++ and ninja are there, for DeepSpeed's operators")


def _has_ninja() -> bool:
    return importlib.util.find_spec("ninja") is not None


def _disk(run_dir: Path) -> Iterator[Finding]:
    place = run_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    place = place.resolve()
    free = shutil.disk_usage(place).free / GB
    if not os.access(place, os.W_OK):
        yield Finding("disk", "fault", f"{place} cannot be written to", f"chmod u+w {place}, or another run_dir")
    level: Level = "ok" if free >= LEAST_DISK_GB else "note"
    told = f"{free:.0f} GB free for {run_dir}"
    if level == "note":
        told += "; a checkpoint of a 7B model that is trained whole takes about 125 GB, of LoRA below 1 GB (omnistage plan RECIPE)"
    yield Finding("disk", level, told, None if level == "ok" else "--run-dir on a larger disk, or save_every: null")


def _memory() -> Iterator[Finding]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    yield Finding("memory", "ok", f"{pages * size / GB:.0f} GB of memory, {cores} CPU cores{_container_limit()}")
    shm = Path("/dev/shm")
    if shm.is_dir():
        total = shutil.disk_usage(shm).total / GB
        level: Level = "ok" if total >= LEAST_SHM_GB else "note"
        mend = None if level == "ok" else "docker run --shm-size=16g (or --ipc=host)"
        yield Finding("memory", level, f"{total:.1f} GB of shared memory", mend)


def _container_limit() -> str:
    """What a control group allows, where that is less than the machine has."""
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.is_file() else "max"
    return f" (this process may use {int(text) / GB:.0f} GB)" if text.isdecimal() else ""


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_FILES:
        yield Finding(
            "limits", "note", f"{soft} open files allowed; several processes with decoders want more", f"ulimit -n {min(hard, 65536)}"
        )
    else:
        yield Finding("limits", "ok", f"{soft} open files allowed")
    threads, cores = os.environ.get("OMP_NUM_THREADS"), len(os.sched_getaffinity(0))
    if threads is not None and threads.isdecimal() and int(threads) > cores:
        yield Finding("limits", "note", f"OMP_NUM_THREADS is {threads} with {cores} cores", f"export OMP_NUM_THREADS={cores}")


def _hub() -> Iterator[Finding]:
    """Where checkpoints are kept, and whether they may be fetched; the hub itself is not called."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE)
    models = len(list(home.glob("models--*"))) if home.is_dir() else 0
    offline = " (offline: HF_HUB_OFFLINE is set, so a checkpoint must be there or in a folder)" if constants.HF_HUB_OFFLINE else ""
    yield Finding("hub", "ok", f"{models} models in {home}{offline}")


def lines(findings: list[Finding]) -> list[str]:
    """For a terminal: a line a finding, and what mends it behind an arrow."""
    marks: dict[Level, str] = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
    out = [f"{marks[one.level]}  {one.check:<10}{one.said}" + (f"  ->  {one.mend}" if one.mend else "") for one in findings]
    faults, notes = (sum(one.level == level for one in findings) for level in ("fault", "note"))
    return [*out, "", f"{faults} faults, {notes} notes"]


def as_data(findings: list[Finding]) -> list[dict[str, Any]]:
    """As plain data, for scripts."""
    return [{"check": one.check, "level": one.level, "said": one.said, "mend": one.mend} for one in findings]
