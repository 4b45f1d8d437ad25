"""What a stage asks of one process at a time, from the recipe and the tokens of its prompts."""

from __future__ import annotations

from omnistage.stages.plan.memory import Load, Setting
from omnistage.stages.plan.tokens import Prompt, Tokens
from omnistage.stages.recipe.batching import TEXT_TOKENS, batching
from omnistage.stages.recipe.schema import GrpoStage, HeadStage, Recipe, SftStage, Training

# The vision tower works on 2 x 2 patches for each token, the audio tower on two frames.
PATCHES, FRAMES = 4, 2
FLOAT32, HALF = 4, 2


def setting_of(recipe: Recipe, stage: Training, *, cpu: bool) -> Setting:
    """How the stage trains on a GPU, or on a CPU."""
    lora, launch = recipe.lora_of(stage), recipe.launch
    dtype = recipe.model.dtype if recipe.model.dtype != "auto" else "float32" if cpu else "bfloat16"
    return Setting(
        engine=launch.engine,
        world=launch.world,
        on_machine=launch.processes,
        compute=FLOAT32 if dtype == "float32" else HALF,
        checkpointing=bool(stage.trainer.get("gradient_checkpointing", not cpu)),
        reference=isinstance(stage, GrpoStage) and stage.beta > 0,
        cpu=cpu,
        dropout=lora is not None and lora.dropout > 0,
    )


def is_plain(recipe: Recipe, stage: GrpoStage) -> bool:
    """Whether each completion has its own copy of the prompt."""
    return stage.shared_prefix == "off" or (stage.shared_prefix == "auto" and recipe.model.attention == "eager")


def load_of(recipe: Recipe, stage: Training, tokens: Tokens, prompt: Prompt, *, cpu: bool) -> Load:
    """One training pass and one rollout of a process whose prompts are all as long as `prompt`."""
    frozen = recipe.freeze_of(stage)
    whole = recipe.lora_of(stage) is None
    patches = PATCHES * prompt.seen if whole and "vision" not in frozen else 0
    frames = FRAMES * prompt.heard if whole and "audio" not in frozen else 0
    if isinstance(stage, GrpoStage):
        return _of_grpo(recipe, stage, prompt, (patches, frames), cpu)
    assert isinstance(stage, SftStage | HeadStage)
    times = int(stage.trainer.get("gradient_accumulation_steps", 1))
    rows = stage.batch_size // (recipe.launch.world * times)
    answer = tokens.answer or TEXT_TOKENS
    # On a CPU TRL's fused head projects what is not asked, too.
    scored = rows * (prompt.total + answer if cpu else answer)
    length = prompt.total + answer
    return Load(
        tokens=rows * length,
        scored=scored,
        patches=rows * patches,
        frames=rows * frames,
        packed=False,
        passes=times,
        pairs=rows * length**2 / 2,
    )


def _of_grpo(recipe: Recipe, stage: GrpoStage, prompt: Prompt, media: tuple[int, int], cpu: bool) -> Load:
    batch, width = batching(recipe, stage), stage.max_completion_length
    plain = is_plain(recipe, stage)
    prompts = batch.per_device if plain else max(1, batch.per_device // stage.num_generations)
    tokens = prompts * prompt.total + batch.per_device * width
    mode = ("cascade" if cpu else "cat") if stage.shared_prefix == "auto" else stage.shared_prefix
    rows = batch.per_device * batch.passes
    # The prompt over itself, completions over it, and each over itself.
    own = prompts * prompt.total**2 / 2 + batch.per_device * width * (prompt.total + width / 2)
    pairs = batch.per_device * (prompt.total + width) ** 2 / 2 if plain else own
    return Load(
        tokens=tokens,
        scored=tokens if plain and cpu else batch.per_device * width,
        copied=batch.per_device * (prompt.total + width) if mode == "cat" and not plain else 0,
        patches=prompts * media[0],
        frames=prompts * media[1],
        packed=not plain,
        rows=rows,
        prompts=rows // stage.num_generations,
        prompt_tokens=prompt.total,
        completion=width,
        passes=batch.passes,
        pairs=pairs,
    )
