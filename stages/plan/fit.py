"""Whether a stage fits a GPU, the largest batch that does, and the settings under which it would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages.plan import memory, sizes, work
from omnistage.stages.plan.memory import Memory
from omnistage.stages.plan.tokens import Tokens
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.batching import batching
from omnistage.stages.recipe.choices import Engine
from omnistage.stages.recipe.schema import GrpoStage, HeadStage, Recipe, SftStage, Training
from omnistage.stages.recipe.yaml_file import apply_override

# Of a GPU's memory; the rest is for CUDA's context, for blocks that the allocator cannot use, and for what the formulas miss.
SAFE = 0.9
MOST_REMEDIES = 3
LORA = "{rank: 32, alpha: 64}"
ENGINES: tuple[Engine, ...] = ("ddp", "zero2", "zero3", "zero3_offload")


@dataclass(frozen=True)
class Remedy:
    """Settings under which a stage fits, as `--set` takes them, and its peak in bytes."""

    settings: tuple[str, ...]
    peak: float

    def __str__(self) -> str:
        return f"{' '.join(f'--set {_quoted(text)}' for text in self.settings)} ({self.peak / 1e9:.1f} GB)"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"settings": list(self.settings), "peak": round(self.peak)}


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def memory_of(config: Any, recipe: Recipe, stage: Training, tokens: Tokens) -> Memory:
    """Bytes of the stage on a GPU with prompts as long as the longest. Raises `InputError` for adapters that match nothing."""
    model = memory.model_of(config, sizes.parameters_of(config, stage, recipe))
    load = work.load_of(recipe, stage, tokens, tokens.longest, cpu=False)
    return memory.estimate(model, work.setting_of(recipe, stage, cpu=False), load)


def changed(recipe: Recipe, stage: Training, settings: tuple[str, ...]) -> tuple[Recipe, Training]:
    """The recipe with other settings, and its stage of the same name. Raises `RecipeError` for settings that a recipe cannot have."""
    raw = recipes.dump(recipe)
    for text in settings:
        apply_override(raw, text)
    made = recipes.build(Recipe, raw, "plan")
    found = next(one for one in made.stages if one.name == stage.name)
    assert isinstance(found, Training)
    return made, found


def peak_under(config: Any, recipe: Recipe, stage: Training, tokens: Tokens, settings: tuple[str, ...]) -> float | None:
    """Bytes at the peak with other settings; None where a recipe cannot have them."""
    try:
        return memory_of(config, *changed(recipe, stage, settings), tokens).peak
    except InputError:
        return None


def engines(config: Any, recipe: Recipe, stage: Training, tokens: Tokens) -> dict[Engine, Memory]:
    """The memory of the stage under each engine on as many GPUs (`single`: on one, with what a process of the recipe has to do)."""
    model = memory.model_of(config, sizes.parameters_of(config, stage, recipe))
    load, setting = work.load_of(recipe, stage, tokens, tokens.longest, cpu=False), work.setting_of(recipe, stage, cpu=False)
    out: dict[Engine, Memory] = {}
    for engine in ("single", *ENGINES):
        world, on_machine = (1, 1) if engine == "single" else (setting.world, setting.on_machine)
        fields = {**vars(setting), "engine": engine, "world": world, "on_machine": on_machine}
        out[engine] = memory.estimate(model, memory.Setting(**fields), load)
    return out


def batches(recipe: Recipe, stage: Training) -> list[tuple[int, str]]:
    """What a forward pass of a process could hold, largest first: completions or rows, and the setting that says so."""
    where = f"stages.{stage.name}"
    if isinstance(stage, GrpoStage):
        group, local = stage.num_generations, stage.completions_per_step // recipe.launch.world
        whole = [group * count for count in range(local // group, 0, -1) if (local // group) % count == 0]
        parts = [count for count in range(group - 1, 0, -1) if group % count == 0]
        return [(count, f"{where}.per_device_batch={count}") for count in [*whole, *parts]]
    assert isinstance(stage, SftStage | HeadStage)
    local = stage.batch_size // recipe.launch.world
    sizes_ = [count for count in range(local, 0, -1) if local % count == 0]
    return [(count, f"{where}.trainer.gradient_accumulation_steps={local // count}") for count in sizes_]


def held(recipe: Recipe, stage: Training) -> int:
    """What a forward pass of a process holds now."""
    if isinstance(stage, GrpoStage):
        return batching(recipe, stage).per_device
    assert isinstance(stage, SftStage | HeadStage)
    return stage.batch_size // (recipe.launch.world * int(stage.trainer.get("gradient_accumulation_steps", 1)))


def largest(config: Any, recipe: Recipe, stage: Training, tokens: Tokens, limit: float) -> tuple[int, str] | None:
    """The largest pass of `batches` that keeps to `limit` bytes, None where none does."""
    for count, setting in batches(recipe, stage):
        peak = peak_under(config, recipe, stage, tokens, (setting,))
        if peak is not None and peak <= limit:
            return count, setting
    return None


def remedies(config: Any, recipe: Recipe, stage: Training, tokens: Tokens, limit: float) -> list[Remedy]:
    """Up to three changes after which the stage keeps to `limit` bytes: a single setting where one is enough, else two together."""
    single = list(dict.fromkeys(_changes(recipe, stage)))
    found: list[Remedy] = []
    for count in (1, 2):
        for chosen in combinations(single, count):
            settings = tuple(text for change in chosen for text in change)
            if len({text.partition("=")[0] for text in settings}) < len(settings):
                continue
            kinds = {settings[0].partition("=")[0]} if count == 1 else {text.partition("=")[0] for text in settings}
            if any(kinds == {text.partition("=")[0] for text in one.settings[: len(kinds)]} for one in found):
                continue
            peak = peak_under(config, recipe, stage, tokens, settings)
            if peak is not None and peak <= limit:
                found.append(Remedy(settings, peak))
            if len(found) == MOST_REMEDIES:
                return found
        if found:
            break
    return found


def _changes(recipe: Recipe, stage: Training) -> Iterator[tuple[str, ...]]:
    """Changes that save memory, those first that change least of what is learned."""
    where = f"stages.{stage.name}"
    now = held(recipe, stage)
    yield from ((setting,) for count, setting in batches(recipe, stage) if count < now)
    if not stage.trainer.get("gradient_checkpointing", True):
        yield (f"{where}.trainer.gradient_checkpointing=true",)
    if isinstance(stage, GrpoStage) and work.is_plain(recipe, stage) and recipe.model.attention != "eager":
        yield (f"{where}.shared_prefix=auto",)
    alone = () if recipe.launch.world > 1 else ("launch.processes=8",)
    at = ENGINES.index(recipe.launch.engine) if recipe.launch.engine in ENGINES else 0
    yield from ((f"launch.engine={engine}", *alone) for engine in ENGINES[at + 1 :])
    if recipe.launch.world == 1 and recipe.launch.engine != "zero3_offload":
        yield ("launch.engine=zero3_offload",)
    if recipe.lora_of(stage) is None:
        yield (f"{where}.lora={LORA}",)
        frozen = recipe.freeze_of(stage)
        if not {"vision", "audio"} <= set(frozen):
            yield (f"{where}.freeze={[*dict.fromkeys([*frozen, 'vision', 'audio'])]}".replace("'", ""),)
    if isinstance(stage, GrpoStage):
        width = stage.max_completion_length
        yield from ((f"{where}.max_completion_length={width // part}",) for part in (2, 4) if width // part)
