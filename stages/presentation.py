"""How a policy was shown its clips and questions; it travels with the model, so that an evaluation shows them in the same way."""

from __future__ import annotations

from pathlib import Path

from transformers import Qwen2_5OmniThinkerConfig

from omnistage.data.media import MediaLimits
from omnistage.rl import policy
from omnistage.rl.encoding import Encoder, MediaShape
from omnistage.stages import files
from omnistage.stages.recipe.choices import Prompt
from omnistage.stages.recipe.loading import build
from omnistage.stages.recipe.schema import Media, Recipe, Section

NAME = "omnistage.json"


class Presentation(Section):
    """Sampling of clips, wording of questions, and the system turn."""

    media: Media = Media()
    prompt: Prompt = "think_answer"
    system_prompt: str | None = None


def of_recipe(recipe: Recipe) -> Presentation:
    """The recipe's own settings."""
    return Presentation(media=recipe.media, prompt=recipe.prompt, system_prompt=recipe.model.system_prompt)


def of_checkpoint(folder: str) -> Presentation:
    """What stands beside the weights; the defaults for a checkpoint that was not trained here."""
    path = Path(folder) / NAME
    return build(Presentation, files.read_json(path), str(path)) if path.is_file() else Presentation()


def save(presentation: Presentation, folder: Path) -> None:
    """Write the settings into a model folder."""
    files.write_json(folder / NAME, presentation.model_dump(mode="json"))


def encoder(presentation: Presentation, folder: str) -> Encoder:
    """An encoder with the checkpoint's processor and these settings."""
    given = presentation.media
    limits = MediaLimits(fps=given.fps, max_frames=given.max_frames, max_sound_s=given.max_sound_s)
    shape = MediaShape(limits, given.min_pixels, given.max_pixels)
    config = Qwen2_5OmniThinkerConfig.from_pretrained(folder)
    return Encoder(policy.load_processor(folder), config, shape=shape, template=presentation.prompt, system=presentation.system_prompt)
