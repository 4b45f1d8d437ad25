"""What a model's answers to a benchmark are worth: asked once, kept as they are, scored from what is kept.

A folder of an evaluation holds `setup.json` (how it is made), `items.jsonl`, `predictions.jsonl`, `scores.jsonl`, `scores.json` and
`card.md` (`stages.benchmarks.items` and `.scoring`). An answer that is missing or cannot be read counts as wrong and stays in the
denominator.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import PartialState
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data import prompts
from omnistage.data.errors import InputError, unknown_name
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, Record
from omnistage.rewards.judges.service import Service
from omnistage.rl import policy
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import carried
from omnistage.stages import files, presentation, rows, run_directory
from omnistage.stages.answering import local, parts, plan, remote
from omnistage.stages.answering.journal import Journal
from omnistage.stages.answering.parts import Shown
from omnistage.stages.benchmarks import items, registry, scoring, setup
from omnistage.stages.benchmarks.base import Benchmark
from omnistage.stages.benchmarks.items import Prediction
from omnistage.stages.benchmarks.scoring import Judge
from omnistage.stages.main_process import on_main, say
from omnistage.stages.measure import controls
from omnistage.stages.presentation import Presentation
from omnistage.stages.recipe.choices import Prompt
from omnistage.stages.recipe.schema import Evaluation, Measurement

# What the last bits of an answer may depend on.
VERSIONS = ("omnistage", "torch", "transformers", "av", "decord")
_OF_HEADS = frozenset({AnswerKind.SCALAR, AnswerKind.POSE})


def check(records: Sequence[Record], measurement: Measurement) -> None:
    """Raises `InputError` when nobody could answer a record rightly, a way to ask is not known, or a control cannot be made of them."""
    benchmark = registry.of(measurement.benchmark)
    for name in measurement.ask:
        if name not in benchmark.options:
            raise InputError(f"benchmark {benchmark.name!r}: {unknown_name('way to ask', name, benchmark.options)}")
    for record in records:
        nothing = Prediction(record.id, items.GREEDY, "", "empty")
        try:
            score = benchmark.score(record, nothing, True)
        except InputError as error:
            raise InputError(f"{record.source}: {error}") from error
        if score.value is None and benchmark.rubric is None:
            raise InputError(f"{record.source}: {score.reason}; benchmark {benchmark.name!r} needs answers that are right or wrong")
        # A judge would mark anything. What is graded was just graded; an open answer that is a number is.
        if benchmark.rubric is not None and benchmark.kinds is not None and record.kind not in benchmark.kinds:
            allowed = ", ".join(sorted(benchmark.kinds))
            raise InputError(f"{record.source}: a question of kind {record.kind}; benchmark {benchmark.name!r} asks for {allowed}")
    for control in measurement.controls:
        asked = [record for record in records if controls.applies(control, record.modality)]
        if not asked:
            found = ", ".join(sorted({str(record.modality) for record in records}))
            raise InputError(f"control {control!r} says nothing about these records, which are {found}; leave it out")
        controls.apply(control, asked, 0)


def measure(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    encoder: Encoder,
    records: Sequence[Record],
    out: Path,
    measurement: Measurement,
    *,
    with_controls: bool,
    checkpoint: str,
    shown: Presentation,
    seed: int = 0,
    judge: Judge | None = None,
    upstream: bool = False,
    embedding: str | None = None,
) -> dict[str, Any]:
    """Ask a model all that `out` does not hold yet, score it, and return what stands in `scores.json`, which is written last.

    `checkpoint` and `shown` say where the model is from and how it is shown clips and questions, for `setup.json`.

    Raises:
        InputError: another evaluation stands in `out`.
    """
    benchmark = registry.of(measurement.benchmark)
    asked = [_shown(benchmark, measurement.ask, record) for record in records]
    head = _head(model, benchmark, asked, measurement.head, checkpoint)
    samples = 0 if head is not None else measurement.samples
    ways = plan.ways(samples, measurement.controls if with_controls else [])
    given = {
        "checkpoint": {"path": checkpoint, "weights": weights_digest(checkpoint, model)},
        "head": None if head is None else head.spec.name,
        "device": device_of(model),
    }
    begin(out, benchmark, asked, measurement, ways, shown, given, seed)
    answerer = local.Answerer(model, encoder, max_new_tokens=measurement.max_new_tokens, head=head)
    batches = plan.batches(asked, ways, measurement.batch_size, seed)
    local.ask(answerer, batches, Journal(out, PartialState().process_index), [record.id for record in asked])
    return scored(out, judge, upstream, embedding)


def begin(
    out: Path,
    benchmark: Benchmark,
    asked: Sequence[Record],
    measurement: Measurement,
    ways: Sequence[plan.Way],
    shown: Presentation,
    given: Mapping[str, Any],
    seed: int,
) -> None:
    """Write `setup.json` and `items.jsonl`, or see that they stand there; `given` says who answers. Raises as `setup.begin`."""
    lines = [items.item_row(record, benchmark.name) for record in asked]
    samples = max(way.samples for way in ways)
    wanted = {
        "benchmark": benchmark.name,
        **given,
        "items": {"count": len(lines), "sha256": files.digest_of_lines(lines)},
        "ask": list(measurement.ask),
        "shown": shown.model_dump(mode="json"),
        "tagged": shown.prompt not in prompts.UNTAGGED,
        "drawing": {"max_new_tokens": measurement.max_new_tokens, "batch_size": measurement.batch_size, "samples": samples},
        "probes": [way.control for way in ways if way.control],
        "seed": seed,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "made": {"command": ["omnistage", *sys.argv[1:]]},
    }

    def write() -> None:
        setup.begin(out, wanted)
        if not (out / items.ITEMS).exists():
            files.write_lines(out / items.ITEMS, lines)

    on_main(write)


def scored(out: Path, judge: Judge | None, upstream: bool, embedding: str | None) -> dict[str, Any]:
    """Score what stands in `out`, say what could not be asked, and return what stands in `scores.json`."""

    def score() -> None:
        scoring.score(out, judge=judge, upstream=upstream, embedding=embedding)

    on_main(score)
    found: dict[str, Any] = files.read_json(out / scoring.FIGURES)
    failed = {run: of_run["counts"]["error"] for run, of_run in found["runs"].items() if of_run["counts"]["error"]}
    for run, count in failed.items():
        say(f"{out}: {count} of {found['runs'][run]['counts']['items']} items could not be asked ({run}); {items.PREDICTIONS} says why")
    return found


def _shown(benchmark: Benchmark, names: Sequence[str], record: Record) -> Record:
    for name in names:
        record = benchmark.options[name](record)
    return record


def _head(model: Any, benchmark: Benchmark, records: Sequence[Record], name: str | None, where: str) -> carried.Head | None:
    """The head that is read in place of words: the one that is named, or the only one where records ask for numbers or poses."""
    heads = carried.heads_of(model)
    if name is None and not (heads and all(record.kind in _OF_HEADS for record in records)):
        return None
    return carried.chosen(heads, name, where)


def device_of(model: Qwen2_5OmniThinkerForConditionalGeneration) -> dict[str, Any]:
    """What a model computes on and with, as far as last bits depend on it."""
    found: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch."), "attention": str(model.config._attn_implementation)}
    if model.device.type == "cuda":
        return {"name": torch.cuda.get_device_name(model.device)} | found
    return {"name": model.device.type, "threads": torch.get_num_threads()} | found


def weights_digest(checkpoint: str, model: Qwen2_5OmniThinkerForConditionalGeneration) -> str | None:
    """What weights are known by: a digest over a folder's safetensors files, or the commit of a model from the hub."""
    found = sorted(Path(checkpoint).glob("*.safetensors"))
    if found:
        return files.digest_of_lines([[path.name, digest] for path, digest in zip(found, files.digests(found), strict=True)])
    commit = getattr(model.config, "_commit_hash", None)
    return None if commit is None else str(commit)


def evaluate_checkpoint(
    checkpoint: str,
    *,
    out: Path,
    evaluation: Evaluation,
    prompt: Prompt | None = None,
    seed: int = 0,
    judge: Judge | None = None,
    upstream: bool = False,
    embedding: str | None = None,
) -> dict[str, Any]:
    """Measure any checkpoint on any annotation files; returns what stands in `scores.json`. The same call again goes on where it stopped.

    Clips and questions are shown as the checkpoint was trained to see them, where that stands beside its weights, else as the benchmark
    has it; `prompt` overrides the wording. Clips that cannot be read are answers that could not be had: counted, and wrong.

    Raises:
        InputError: the checkpoint or a file cannot be read, or `out` holds another evaluation.
    """
    policy.quiet_libraries()
    files.make_folder(out, "--out")
    policy.check_folder(checkpoint, "checkpoint")
    records = rows.read_sources(evaluation.data)
    check(records, evaluation)
    shown = shown_to(checkpoint, evaluation.benchmark, prompt)
    with run_directory.held(out):
        model = policy.load(checkpoint)
        policy.freeze(model, ["vision", "audio", "language"])
        if torch.cuda.is_available():
            model.cuda()
        encoder = presentation.encoder(shown, checkpoint)
        local.keep_clips(encoder)
        return measure(
            model,
            encoder,
            records,
            out,
            evaluation,
            with_controls=True,
            checkpoint=checkpoint,
            shown=shown,
            seed=seed,
            judge=judge,
            upstream=upstream,
            embedding=embedding,
        )


def evaluate_endpoint(
    service: Service,
    *,
    out: Path,
    evaluation: Evaluation,
    media: Literal["frames", "files"] = "frames",
    prompt: Prompt | None = None,
    seed: int = 0,
    judge: Judge | None = None,
    upstream: bool = False,
    embedding: str | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """The same of a model behind an OpenAI-compatible URL; `again` asks once more what could not be had the last time."""
    files.make_folder(out, "--out")
    records = rows.read_sources(evaluation.data)
    check(records, evaluation)
    benchmark = registry.of(evaluation.benchmark)
    asked = [_shown(benchmark, evaluation.ask, record) for record in records]
    ways = plan.ways(evaluation.samples, evaluation.controls)
    shown = Presentation(prompt=prompt or _usual_prompt(evaluation.benchmark))
    batches = plan.batches(asked, ways, evaluation.batch_size, seed)
    limits = MediaLimits(fps=shown.media.fps, max_frames=shown.media.max_frames, max_sound_s=shown.media.max_sound_s)
    sent = Shown(shown.prompt, shown.system_prompt, media, limits, shown.media.max_pixels)
    # Before the first answer is paid for.
    for record in (record for batch in batches for record in batch.records):
        try:
            parts.check(record, sent)
        except InputError as error:
            raise InputError(f"{record.source}: {error}") from error
    with run_directory.held(out):
        given = {"endpoint": {"url": service.url, "model": service.model, "media": media}}
        begin(out, benchmark, asked, evaluation, ways, shown, given, seed)
        journal = Journal(out)
        if again:
            say(f"{out}: {journal.forget_errors(batches)} batches are asked again")
        remote.ask(service, sent, batches, journal, [record.id for record in asked])
        return scored(out, judge, upstream, embedding)


def shown_to(checkpoint: str, benchmark: str, prompt: Prompt | None) -> Presentation:
    """How a checkpoint is shown clips and questions of a benchmark."""
    shown = presentation.of_checkpoint(checkpoint)
    if prompt is None and not presentation.is_known(checkpoint):
        prompt = _usual_prompt(benchmark)
    return shown if prompt is None else shown.model_copy(update={"prompt": prompt})


def _usual_prompt(benchmark: str) -> Prompt:
    [usual, *_] = registry.of(benchmark).prompts
    return cast(Prompt, usual)
