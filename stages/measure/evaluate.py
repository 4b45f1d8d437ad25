"""Held-out accuracy of a checkpoint, with the graders of training, and every prediction on disk.

An answer that is missing or cannot be read counts as wrong and stays in the denominator.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data import prompts
from omnistage.data.errors import InputError
from omnistage.data.records import Modality, Record
from omnistage.rewards.grade import grade_completion, naming
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoder
from omnistage.rl.prefetch import read_ahead
from omnistage.rl.towers import Towers
from omnistage.stages import files, presentation, rows
from omnistage.stages.measure import controls
from omnistage.stages.measure.statistics import share
from omnistage.stages.recipe.choices import Control, Prompt
from omnistage.stages.recipe.schema import Evaluation, Measurement


@dataclass(frozen=True, slots=True)
class Drawing:
    """How an answer is drawn: greedily, or one sample at temperature 1."""

    sampled: bool = False
    max_new_tokens: int = 24
    batch_size: int = 64


def answers(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    encoder: Encoder,
    records: Sequence[Record],
    drawing: Drawing,
    *,
    label: str = "",
    seed: int = 0,
) -> list[str]:
    """One completion of each record, in order.

    Rows of one batch have one modality; in float32 greedy answers do not depend on the batch.
    """
    towers = Towers(model, encoder.feature_cache)
    tokenizer = encoder.processor.tokenizer
    end_ids = policy.end_tokens(model, encoder.processor)
    settings: dict[str, Any] = {
        "max_new_tokens": drawing.max_new_tokens,
        "do_sample": drawing.sampled,
        "suppress_tokens": policy.forbidden_tokens(encoder.processor),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": end_ids,
    }
    if drawing.sampled:
        settings |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    texts: list[str] = [""] * len(records)
    model.eval()
    shown_together = list(batches(records, drawing.batch_size))
    ahead = read_ahead(encoder, [[records[index] for index in indices] for indices in shown_together])
    with torch.random.fork_rng(), tqdm(total=len(records), desc=label, disable=None, leave=False) as bar, closing(ahead):
        torch.manual_seed(seed)
        for indices, encoded in zip(shown_together, ahead, strict=True):
            out = rollout.generate(model, towers, encoded, num_generations=1, pad_id=tokenizer.pad_token_id, **settings)
            ended = rollout.until_end(out, end_ids)
            for index, text in zip(indices, tokenizer.batch_decode(ended, skip_special_tokens=True), strict=True):
                texts[index] = text
            bar.update(len(indices))
    return texts


def batches(records: Sequence[Record], size: int) -> Iterator[list[int]]:
    """Indices of records that are shown together: at most `size`, of one modality."""
    by_modality: dict[Modality, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        by_modality[record.modality].append(index)
    for indices in by_modality.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def predictions(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    encoder: Encoder,
    records: Sequence[Record],
    drawing: Drawing,
    *,
    control: Control | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Graded answers of all records, shared out over the processes; every process gets all rows, in the records' order."""
    asked = [record for record in records if control is None or controls.applies(control, record.modality)]
    shown = controls.apply(control, asked, seed) if control else asked
    state = PartialState()
    mine = range(state.process_index, len(shown), state.num_processes)
    label = control or ("sampled" if drawing.sampled else "greedy")
    texts = answers(model, encoder, [shown[index] for index in mine], drawing, label=label, seed=seed + state.process_index)
    tagged = encoder.template not in prompts.UNTAGGED
    graded = [(index, _prediction(shown[index], text, control, drawing, tagged)) for index, text in zip(mine, texts, strict=True)]
    gathered = gather_object(graded) if state.num_processes > 1 else graded
    return [row for _, row in sorted(gathered, key=lambda item: item[0])]


def _prediction(record: Record, text: str, control: Control | None, drawing: Drawing, tagged: bool) -> dict[str, Any]:
    grade = grade_completion(text, target=record.target, kind=record.kind, options=record.options, tagged=tagged)
    return {
        "id": record.id,
        "modality": str(record.modality),
        "task": record.task,
        "kind": str(record.kind),
        "control": control,
        "sampled": drawing.sampled,
        "media": [ref.path for ref in record.media],
        "sound": [ref.sound for ref in record.media],
        "target": record.target,
        "completion": text,
        "answer": grade.answer,
        "score": grade.score,
        "reason": grade.reason,
    }


def majority(found: Sequence[dict[str, Any]]) -> float:
    """Accuracy of the best constant answer to each task."""
    by_task: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        by_task[row["task"]][row["target"]] += 1
    return sum(max(counts.values()) for counts in by_task.values()) / len(found)


def scores(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per modality: n, accuracy with its 95 % interval, what the majority class would score, unanswered items, and accuracy per task.

    Raises:
        InputError: an item has an answer of a kind that has no grader.
    """
    for row in found:
        if row["score"] is None:
            raise InputError(f"{row['id']}: {row['reason']}")
    out: dict[str, dict[str, Any]] = {}
    for modality in dict.fromkeys(row["modality"] for row in found):
        items = [row for row in found if row["modality"] == modality]
        estimate = share(sum(row["score"] == 1 for row in items), len(items))
        tasks: dict[str, list[bool]] = defaultdict(list)
        for row in items:
            tasks[row["task"]].append(row["score"] == 1)
        out[modality] = {
            "n": len(items),
            "accuracy": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "majority": majority(items),
            "unanswered": sum(row["answer"] is None for row in items),
            "tasks": {task: {"n": len(right), "accuracy": sum(right) / len(right)} for task, right in tasks.items()},
        }
    return out


def check_graded(records: Sequence[Record], needed_for: str) -> None:
    """Raises `InputError` for the first record whose answer nobody can grade; no answer is drawn for it first."""
    for record in records:
        with naming([record.source], 0):
            grade = grade_completion("", target=record.target, kind=record.kind, options=record.options)
        if grade.score is None:
            raise InputError(f"{record.source}: {grade.reason}; {needed_for} needs answers that are right or wrong")


def check(records: Sequence[Record], measurement: Measurement) -> None:
    """Raises `InputError` when an answer cannot be graded, or a control cannot be made from these records."""
    check_graded(records, "an evaluation")
    for control in measurement.controls:
        controls.apply(control, [record for record in records if controls.applies(control, record.modality)], 0)


def measure(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    encoder: Encoder,
    records: Sequence[Record],
    out: Path,
    measurement: Measurement,
    *,
    with_controls: bool,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a model and write `predictions.jsonl` and, last, `scores.json` to `out`.

    A measurement that already stands in `out` is read and not repeated.
    """
    if (out / "scores.json").is_file():
        found: dict[str, Any] = files.read_json(out / "scores.json")
        return found
    drawing = Drawing(max_new_tokens=measurement.max_new_tokens, batch_size=measurement.batch_size)
    rows_found = predictions(model, encoder, records, drawing, seed=seed)
    result: dict[str, Any] = {"modalities": scores(rows_found)}
    if measurement.sampled:
        sampled = Drawing(True, measurement.max_new_tokens, measurement.batch_size)
        drawn = predictions(model, encoder, records, sampled, seed=seed)
        result["sampled"] = scores(drawn)
        rows_found = rows_found + drawn
    if with_controls:
        result["controls"] = {}
        for control in measurement.controls:
            drawn = predictions(model, encoder, records, drawing, control=control, seed=seed)
            result["controls"][control] = scores(drawn)
            rows_found = rows_found + drawn
    if PartialState().is_main_process:
        files.write_lines(out / "predictions.jsonl", rows_found)
        files.write_json(out / "scores.json", result)
    PartialState().wait_for_everyone()
    return result


def evaluate_checkpoint(
    checkpoint: str, *, out: Path, evaluation: Evaluation, prompt: Prompt | None = None, seed: int = 0
) -> dict[str, Any]:
    """Measure any checkpoint on any annotation files; returns what stands in `scores.json`.

    Clips and questions are shown as the checkpoint was trained to see them, where that stands beside its weights; `prompt` overrides
    the wording.

    Raises:
        InputError: the checkpoint, a file or a clip cannot be read, or `out` already holds a measurement.
    """
    if (out / "scores.json").exists():
        raise InputError(f"{out / 'scores.json'} exists; choose another --out, or remove that folder to measure again")
    policy.quiet_libraries()
    files.make_folder(out, "--out")
    policy.check_folder(checkpoint, "checkpoint")
    records = rows.read_sources(evaluation.data)
    rows.check_media(records)
    check(records, evaluation)
    shown = presentation.of_checkpoint(checkpoint)
    if prompt is not None:
        shown = shown.model_copy(update={"prompt": prompt})
    model = policy.load(checkpoint)
    policy.freeze(model, ["vision", "audio", "language"])
    if torch.cuda.is_available():
        model.cuda()
    encoder = presentation.encoder(shown, checkpoint)
    return measure(model, encoder, records, out, evaluation, with_controls=True, seed=seed)
