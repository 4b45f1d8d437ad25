"""Which devices a process may see. Imports no torch: it must have its say before torch counts them."""

from __future__ import annotations

import os

VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_one_device() -> None:
    """Leaves one CUDA device in sight: the first that `CUDA_VISIBLE_DEVICES` names, or device 0.

    A trainer that sees several devices in one process would spread each batch over all of them (DataParallel), which TRL refuses.
    Several devices are for the engines with several processes, where torchrun gives each process its own.
    Without a GPU this changes nothing, and after torch has looked for devices it comes too late.
    """
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").partition(",")[0].strip()
