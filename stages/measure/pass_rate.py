"""How often a checkpoint answers each record: N answers sampled at temperature 1, graded as training and evaluation grade them.

A prompt that is always or never answered gives GRPO nothing (`omnistage.rl.refill`); measured once, it can be left out of a stage. The
N answers of a prompt share one copy of it, as in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from omnistage.data import pass_rates, prompts
from omnistage.data.errors import InputError
from omnistage.data.pass_rates import Rate, digest_of
from omnistage.data.records import Record
from omnistage.rewards.grade import grade_completion, naming
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoder
from omnistage.rl.shared_prefix import attention, decode
from omnistage.rl.towers import Towers
from omnistage.stages import files, presentation, rows
from omnistage.stages.answering.plan import together
from omnistage.stages.recipe.choices import Prompt
from omnistage.stages.recipe.source import Source


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: `samples` of each record, of at most `max_new_tokens`, for `batch_size` records at a time."""

    samples: int
    max_new_tokens: int
    batch_size: int
    seed: int = 0


def measure(
    checkpoint: str, sources: Sequence[Source], out: Path, sampling: Sampling, *, prompt: Prompt | None = None
) -> dict[str, list[Rate]]:
    """The rates of all records, by annotation file; what `out` does not hold yet is measured and added to it.

    Clips and questions are shown as the checkpoint was trained to see them; `prompt` overrides the wording. Each batch is drawn whole, from
    a seed that follows from its records, so that a measurement that is gone on with gives the rates of one that was not interrupted.

    Raises:
        InputError: the checkpoint, a file or a clip cannot be read, an answer has no grader, or `out` holds something else.
    """
    policy.quiet_libraries()
    policy.check_folder(checkpoint, "checkpoint")
    blocks = [(source.path, rows.read_source(source)) for source in sources]
    for _, records in blocks:
        _check_graded(records)
        rows.check_text(records)
        rows.check_media(records)
    shown = presentation.of_checkpoint(checkpoint)
    if prompt is not None:
        shown = shown.model_copy(update={"prompt": prompt})
    manifest = Path(checkpoint) / files.MANIFEST
    weights = files.digest(manifest) if manifest.is_file() else None
    settings = {"checkpoint": str(Path(checkpoint)), "manifest": weights, "shown": shown.model_dump(mode="json")} | asdict(sampling)
    known = pass_rates.begin(out, settings).rates
    missing = [
        (path, batch)
        for path, records in blocks
        for batch in ([records[at] for at in indices] for indices in together(records, sampling.batch_size))
        if any((record.id, digest_of(record)) not in known for record in batch)
    ]
    if missing:
        model = policy.load(checkpoint)
        policy.freeze(model, ["vision", "audio", "language"])
        if torch.cuda.is_available():
            model.cuda()
        attention.install(model)
        towers, encoder = Towers(model), presentation.encoder(shown, checkpoint)
        with tqdm(total=sum(len(batch) for _, batch in missing), desc="pass rates", unit="record", disable=None, leave=False) as bar:
            for path, batch in missing:
                new = [rate for rate in _rates(towers, encoder, path, batch, sampling) if (rate.id, rate.digest) not in known]
                pass_rates.append(out, new)
                bar.update(len(batch))
    known = pass_rates.read(out).rates
    return {path: [known[record.id, digest_of(record)] for record in records] for path, records in blocks}


def _rates(towers: Towers, encoder: Encoder, path: str, batch: Sequence[Record], sampling: Sampling) -> list[Rate]:
    model = towers.thinker
    tokenizer = encoder.processor.tokenizer
    end_ids = policy.end_tokens(model, encoder.processor)
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        **rollout.PLAIN,
        suppress_tokens=policy.forbidden_tokens(encoder.processor),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_ids,
    )
    model.eval()
    digests = [digest_of(record) for record in batch]
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(hashlib.sha256("/".join([str(sampling.seed), *digests]).encode()).digest()[:8], "big"))
        drawn = decode.generate(
            model,
            towers,
            [encoder(record) for record in batch],
            num_generations=sampling.samples,
            pad_id=tokenizer.pad_token_id,
            generation_config=settings,
        )
    texts = tokenizer.batch_decode(rollout.until_end(drawn.ids, end_ids), skip_special_tokens=True)
    tagged, n = encoder.template not in prompts.UNTAGGED, sampling.samples
    return [
        Rate(record.id, path, record.source, digest, _passed(record, texts[at * n :][:n], tagged), n)
        for at, (record, digest) in enumerate(zip(batch, digests, strict=True))
    ]


def _passed(record: Record, texts: Sequence[str], tagged: bool) -> int:
    grades = [grade_completion(text, target=record.target, kind=record.kind, options=record.options, tagged=tagged) for text in texts]
    return sum(grade.score == 1 for grade in grades)


def _check_graded(records: Sequence[Record]) -> None:
    """Raises `InputError` for the first record whose answer nobody can grade; no answer is drawn for it first."""
    for record in records:
        with naming([record.source], 0):
            grade = grade_completion("", target=record.target, kind=record.kind, options=record.options)
        if grade.score is None:
            raise InputError(f"{record.source}: {grade.reason}; a pass rate needs answers that are right or wrong")


def summary(by_file: Mapping[str, Sequence[Rate]]) -> dict[str, dict[str, Any]]:
    """Per file `records`, how many of them were answered `never`, `sometimes` and `always`, and the `mean` rate."""
    out: dict[str, dict[str, Any]] = {}
    for path, rates in by_file.items():
        never, always = sum(rate.passed == 0 for rate in rates), sum(rate.passed == rate.samples for rate in rates)
        found = {"records": len(rates), "never": never, "sometimes": len(rates) - never - always, "always": always}
        out[path] = found | {"mean": sum(rate.share for rate in rates) / len(rates)}
    return out
