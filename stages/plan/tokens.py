"""How many tokens a stage's prompts and answers have: of a sample of its real rows, or the most that the recipe's limits allow."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistage.data.records import Modality, Record
from omnistage.stages import presentation, rows, token_counts
from omnistage.stages.recipe.batching import TEXT_TOKENS, prompt_tokens
from omnistage.stages.recipe.schema import GrpoStage, Recipe, Training

SHARES = (50, 90, 95, 99, 100)


@dataclass(frozen=True)
class Prompt:
    """Tokens of a prompt: in all, and those that pictures and sound take."""

    total: int
    seen: int
    heard: int


@dataclass(frozen=True)
class Tokens:
    """Of one stage: percentiles of a prompt's tokens by modality (`{modality: {"p50": ...}}`), the typical prompt and the longest one,
    the longest answer (demonstrations; 0: not known), the rows read (None: not read), and where all this comes from."""

    percentiles: dict[str, dict[str, float]]
    typical: Prompt
    longest: Prompt
    answer: int
    rows: int | None
    told: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"by_modality": self.percentiles, "longest": self.longest.total, "rows": self.rows, "from": self.told}


def of_stage(recipe: Recipe, stage: Training, folder: str | None, sample: int) -> Tokens:
    """Tokens of `sample` rows drawn from the stage's files; of the recipe's limits where a file, a clip or the processor is not here.

    `folder` is the checkpoint whose processor counts. Raises `InputError` for an annotation file that is there and wrong.
    """
    missing = [source.path for source in stage.data if not Path(source.path).exists()]
    if missing:
        return of_limits(recipe, stage, None, f"the recipe's limits; {missing[0]} is not here")
    records = rows.read_sources(stage.data)
    if folder is None:
        return of_limits(recipe, stage, len(records), "the recipe's limits; the model's processor is not here")
    chosen = random.Random(recipe.seed).sample(records, min(sample, len(records)))
    counted, refused = token_counts.count(chosen, encoder := presentation.encoder(presentation.of_recipe(recipe), folder))
    if not counted:
        return of_limits(recipe, stage, len(records), f"the recipe's limits; no row of the sample can be read ({refused[0][1]})")
    prompts = sorted((_prompt(one) for one in counted), key=lambda prompt: prompt.total)
    by_modality: dict[str, list[int]] = defaultdict(list)
    for one in counted:
        by_modality[one["modality"]].append(one["total"])
    told = f"{len(counted)} of {len(records)} rows" + (f"; {len(refused)} of the sample cannot be read" if refused else "")
    return Tokens(
        {modality: {f"p{share}": percentile(totals, share) for share in SHARES} for modality, totals in by_modality.items()},
        prompts[(len(prompts) - 1) // 2],
        prompts[-1],
        max(_answers(chosen, encoder.processor.tokenizer), default=0),
        len(records),
        told,
    )


def of_limits(recipe: Recipe, stage: Training, count: int | None, told: str) -> Tokens:
    """The most that the recipe's limits allow; where a source leaves its modality open, that is taken to be video with its sound."""
    usual = stage.modality if isinstance(stage, GrpoStage) else Modality.AUDIO_VIDEO
    modalities = list(dict.fromkeys(source.modality or usual for source in stage.data))
    prompts = {modality: _most(recipe, modality) for modality in modalities}
    longest = max(prompts.values(), key=lambda prompt: prompt.total)
    known = {str(modality): {"p100": float(prompt.total)} for modality, prompt in prompts.items()}
    return Tokens(known, longest, longest, 0, count, told)


def percentile(values: Sequence[int], share: int) -> float:
    """The smallest value that `share` percent of all do not exceed."""
    ordered = sorted(values)
    return float(ordered[max(0, -(-share * len(ordered) // 100) - 1)])


def _prompt(counted: dict[str, Any]) -> Prompt:
    parts = counted["parts"]
    return Prompt(counted["total"], parts.get("image", 0) + parts.get("video", 0), parts.get("audio", 0))


def _most(recipe: Recipe, modality: Modality) -> Prompt:
    total = prompt_tokens(recipe.media, modality)
    heard = prompt_tokens(recipe.media, Modality.AUDIO) - TEXT_TOKENS if modality in (Modality.AUDIO, Modality.AUDIO_VIDEO) else 0
    return Prompt(total, total - TEXT_TOKENS - heard, heard)


def _answers(records: Sequence[Record], tokenizer: Any) -> list[int]:
    return [len(tokenizer(record.response)["input_ids"]) + 1 for record in records if record.response]
