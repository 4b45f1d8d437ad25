"""Every benchmark by its name, and none that would make the command line wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omnistage.data.errors import InputError
from omnistage.data.formats import READERS
from omnistage.data.prompts import TEMPLATES
from omnistage.stages.benchmarks.registry import BENCHMARKS, of


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"unknown benchmark 'humansens'; did you mean 'humansense'\? known: .*hisbench, humansense, instit"
    ):
        of("humansens")


@pytest.mark.parametrize("name", ["humansense", "instit", "hisbench", "choice", "open"])
def test_a_benchmark_names_readers_and_prompts_that_exist(name: str) -> None:
    benchmark = of(name)
    assert benchmark.name == name
    assert benchmark.formats
    assert set(benchmark.formats) <= READERS.keys()
    assert benchmark.prompts
    assert set(benchmark.prompts) <= TEMPLATES.keys()


def test_names_are_keys_and_only_judged_ones_take_open_answers() -> None:
    assert [benchmark.name for benchmark in BENCHMARKS.values()] == list(BENCHMARKS)
    assert {name for name in ("humansense", "instit", "hisbench", "choice", "open") if of(name).rubric} == {"instit", "hisbench", "open"}


def test_the_registry_loads_nothing_heavy() -> None:
    source = (
        "import sys, omnistage.stages.benchmarks.registry; print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
