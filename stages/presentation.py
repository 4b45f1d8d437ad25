"""How a policy was shown its clips and questions; it travels with the model, so that an evaluation shows them in the same way."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from transformers import Qwen2_5OmniThinkerConfig

from omnistage.data import media
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.section import CountOrZero, Section
from omnistage.rl import policy
from omnistage.rl.checkpoint import file_of
from omnistage.rl.encoding import Encoder, MediaShape
from omnistage.rl.feature_cache import FeatureCache
from omnistage.stages import files
from omnistage.stages.recipe.choices import Prompt
from omnistage.stages.recipe.loading import build
from omnistage.stages.recipe.schema import Recipe
from omnistage.stages.recipe.surroundings import Cache, Media, RunMedia

NAME = "omnistage.json"


class Presentation(Section):
    """Sampling of clips, wording of questions, and the system turn; and how this run reads clips, which is not saved with a model."""

    media: Media = Media()
    prompt: Prompt = "think_answer"
    system_prompt: str | None = None
    cache: Cache | None = Field(None, exclude=True)
    feature_cache: Cache | None = Field(None, exclude=True)
    workers: CountOrZero = Field(RunMedia().workers, exclude=True)


def of_recipe(recipe: Recipe) -> Presentation:
    """The recipe's own settings."""
    return Presentation(
        media=recipe.media.shown(),
        prompt=recipe.prompt,
        system_prompt=recipe.model.system_prompt,
        cache=recipe.media.cache,
        feature_cache=recipe.media.feature_cache,
        workers=recipe.media.workers,
    )


def of_checkpoint(folder: str) -> Presentation:
    """What stands beside the weights; the defaults for a checkpoint that was not trained here."""
    path = file_of(folder, NAME)
    return Presentation() if path is None else build(Presentation, files.read_json(path), str(path))


def is_known(folder: str) -> bool:
    """Whether it stands beside the weights."""
    return file_of(folder, NAME) is not None


def save(presentation: Presentation, folder: Path) -> None:
    """Write the settings into a model folder."""
    files.write_json(folder / NAME, presentation.model_dump(mode="json"))


def encoder(presentation: Presentation, folder: str) -> Encoder:
    """An encoder with the checkpoint's processor and these settings.

    Raises:
        InputError: the folder of the cache of decoded clips cannot be written.
    """
    given, kept, features = presentation.media, presentation.cache, presentation.feature_cache
    limits = MediaLimits(fps=given.fps, max_frames=given.max_frames, max_sound_s=given.max_sound_s)
    return Encoder(
        policy.load_processor(folder),
        Qwen2_5OmniThinkerConfig.from_pretrained(folder),
        shape=MediaShape(limits, given.min_pixels, given.max_pixels),
        template=presentation.prompt,
        system=presentation.system_prompt,
        decode=MediaCache(kept.path, kept.max_bytes).decode if kept else media.decode,
        feature_cache=FeatureCache(features.path, features.max_bytes) if features else None,
        workers=presentation.workers,
    )
