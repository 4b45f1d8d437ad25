"""The benchmarks by name."""

from __future__ import annotations

from omnistage.data.errors import InputError, unknown_name
from omnistage.stages.benchmarks import gen3dhf, hisbench, humansense, instit, own, pose
from omnistage.stages.benchmarks.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        humansense.BENCHMARK,
        instit.BENCHMARK,
        hisbench.BENCHMARK,
        gen3dhf.BENCHMARK,
        pose.BENCHMARK,
        own.CHOICE,
        own.OPEN,
    )
}


def of(name: str) -> Benchmark:
    """The benchmark of a name; `InputError` names the known ones for an unknown one."""
    if name not in BENCHMARKS:
        raise InputError(unknown_name("benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]
