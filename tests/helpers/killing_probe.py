"""Work that kills or holds up its process where the name of its item says so. In a file of its own: workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from omnistage.data.checks.probe import Facts, Job, probe


def slow_or_dead(name: str) -> str:
    if name == "hangs":
        time.sleep(60)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "leaves":
        os._exit(3)
    if name == "raises":
        raise KeyError("x")
    return name.upper()


def probe_or_die(job: Job) -> Facts:
    slow_or_dead(Path(job.path).stem)
    return probe(job)
