"""How a GRPO step is cut into forward passes. Imports no torch, so that `--dry-run` says what a run will do.

A pass takes whole groups where it can, for a group's prompt is computed once in each pass that holds some of it. Where the recipe leaves
`per_device_batch` out, a pass takes as many groups of one process as divide its share of the step and keep to `tokens_per_forward`. What
limits a pass is memory: with gradient checkpointing mostly its layers' inputs, 65,536 tokens x 28 layers x 3,584 numbers x 2 bytes = 13 GB
for a 7B thinker in bfloat16, beside its weights on a device of 80 GB; and a few thousand tokens already keep a device's matrix units busy.
The tokens of a prompt are counted from the recipe alone, as the most that its limits allow, so that a dry run, a run and a run that is
gone on with agree. Real clips are often far shorter: `omnistage data check --tokens` counts them, and a `per_device_batch` can be given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from omnistage.data.records import Modality
from omnistage.stages.recipe.schema import GrpoStage, Recipe
from omnistage.stages.recipe.surroundings import Media

# Of Qwen2.5-Omni: a token for 28 x 28 pixels (of two frames in a video), and 25 a second of sound.
PIXELS_PER_TOKEN = 28 * 28
FRAMES_PER_TOKEN = 2
SOUND_TOKENS_PER_S = 25
# What its processor allows where a recipe sets no limit, in tokens of two frames and of an image.
FRAME_TOKENS, IMAGE_TOKENS = 768, 16384
# System turn, template, question and options.
TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Batching:
    """One process's part of a step: completions per forward pass, passes per step, and whether the recipe left that open."""

    per_device: int
    passes: int
    num_generations: int
    derived: bool

    def __str__(self) -> str:
        groups, cut = divmod(self.per_device, self.num_generations)
        held = f"1/{self.num_generations // self.per_device} of a group" if cut else f"{groups} group{'s' if groups > 1 else ''}"
        passes = f"{self.passes} pass{'es' if self.passes > 1 else ''} a step"
        return f"{self.per_device} ({'derived: ' if self.derived else ''}{held} of {self.num_generations}; {passes})"


def prompt_tokens(media: Media, modality: Modality) -> int:
    """The most tokens of a prompt with one clip under these limits."""
    pictures = sound = 0
    if modality in (Modality.VIDEO, Modality.AUDIO_VIDEO):
        of_a_pair = FRAME_TOKENS if media.max_pixels is None else math.ceil(media.max_pixels / PIXELS_PER_TOKEN)
        pictures = math.ceil(media.max_frames / FRAMES_PER_TOKEN) * of_a_pair
    elif modality is Modality.IMAGE:
        pictures = IMAGE_TOKENS if media.max_pixels is None else math.ceil(media.max_pixels / PIXELS_PER_TOKEN)
    if modality in (Modality.AUDIO, Modality.AUDIO_VIDEO):
        sound = math.ceil(media.max_sound_s * SOUND_TOKENS_PER_S)
    return TEXT_TOKENS + pictures + sound


def group_tokens(recipe: Recipe, stage: GrpoStage) -> int:
    """The most tokens of one group in a forward pass: its prompt once (or G times, without sharing) and G completions."""
    prompt = max(prompt_tokens(recipe.media, source.modality or stage.modality) for source in stage.data)
    plain = stage.shared_prefix == "off" or (stage.shared_prefix == "auto" and recipe.model.attention == "eager")
    copies = stage.num_generations if plain else 1
    return copies * prompt + stage.num_generations * stage.max_completion_length


def batching(recipe: Recipe, stage: GrpoStage) -> Batching:
    """The recipe's own `per_device_batch`, or the best that keeps to `tokens_per_forward`; one group where none does."""
    groups = stage.prompts_per_step // recipe.launch.world
    local = groups * stage.num_generations
    if stage.per_device_batch is not None:
        return Batching(stage.per_device_batch, local // stage.per_device_batch, stage.num_generations, derived=False)
    fit = stage.tokens_per_forward // group_tokens(recipe, stage)
    held = max(count for count in range(1, groups + 1) if groups % count == 0 and count <= max(fit, 1))
    return Batching(held * stage.num_generations, groups // held, stage.num_generations, derived=True)
