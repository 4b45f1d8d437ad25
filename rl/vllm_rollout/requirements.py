"""What a rollout with vLLM needs on this machine. Imports neither vLLM nor torch until it is asked."""

from __future__ import annotations

from importlib import metadata

from packaging.specifiers import SpecifierSet

from omnistage.data.errors import InputError

# TRL 1.16 takes 0.22 to 0.31. Below 0.27 vLLM wants an older torch than this package, from 0.31 on an older transformers.
VERSIONS = SpecifierSet(">=0.27,<0.31")
INSTALL = "pip install 'omnistage[vllm]'"


def installed() -> str | None:
    """The version of vLLM that is installed, None without one."""
    try:
        return metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return None


def fits(version: str) -> bool:
    """Whether this version is one that TRL and this package take."""
    return VERSIONS.contains(version, prereleases=True)


def check(where: str) -> None:
    """Raises `InputError`, with the command that mends it, where vLLM is not installed, is of another version, or there is no CUDA."""
    version = installed()
    if version is None:
        raise InputError(f"{where} is 'vllm' and vLLM is not installed: {INSTALL}, or {where}: policy")
    if not fits(version):
        raise InputError(f"{where} is 'vllm', vLLM is {version} and allowed is {VERSIONS}: {INSTALL}")
    import torch

    if not torch.cuda.is_available():
        raise InputError(f"{where} is 'vllm' and torch sees no CUDA device, which its weights are handed over on; allowed here: policy")
