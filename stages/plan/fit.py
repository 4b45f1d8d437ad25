"""Whether a stage fits a GPU, the largest batch that does, and the settings under which it would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
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
ENGINES: tuple[Engine, ...] = ("ddp", "fsdp2", "zero2", "zero3", "zero3_offload")


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


class Stage:
    """A stage and what it needs, as it stands or with other settings, for prompts as long as the longest.

    Raises:
        InputError: the stage's adapters match no module.
    """

    def __init__(self, config: Any, recipe: Recipe, stage: Training, tokens: Tokens) -> None:
        self.config, self.recipe, self.stage, self.tokens = config, recipe, stage, tokens
        self._counted: dict[str, sizes.Parameters] = {}
        self.parameters = self._parameters(recipe, stage)

    def _parameters(self, recipe: Recipe, stage: Training) -> sizes.Parameters:
        """Counted once for each way to freeze and to adapt."""
        key = f"{sorted(recipe.freeze_of(stage))} {recipe.lora_of(stage)}"
        if key not in self._counted:
            self._counted[key] = sizes.parameters_of(self.config, stage, recipe)
        return self._counted[key]

    def _memory(self, recipe: Recipe, stage: Training) -> Memory:
        model = memory.model_of(self.config, self._parameters(recipe, stage))
        load = work.load_of(recipe, stage, self.tokens, self.tokens.longest, cpu=False)
        return memory.estimate(model, work.setting_of(recipe, stage, cpu=False), load)

    def peak_under(self, settings: tuple[str, ...]) -> float | None:
        """Bytes at the peak with other settings; None where a recipe cannot have them."""
        try:
            raw = recipes.dump(self.recipe)
            for text in settings:
                apply_override(raw, text)
            recipe = recipes.build(Recipe, raw, "plan")
            stage = next(one for one in recipe.stages if one.name == self.stage.name)
            assert isinstance(stage, Training)
            return self._memory(recipe, stage).peak
        except InputError:
            return None

    def engines(self) -> dict[Engine, Memory]:
        """The memory under each engine on as many GPUs, of which each does what it does now (`single`: on one)."""
        model = memory.model_of(self.config, self.parameters)
        load = work.load_of(self.recipe, self.stage, self.tokens, self.tokens.longest, cpu=False)
        setting = work.setting_of(self.recipe, self.stage, cpu=False)
        out: dict[Engine, Memory] = {}
        for engine in ("single", *ENGINES):
            world, on_machine = (1, 1) if engine == "single" else (setting.world, setting.on_machine)
            out[engine] = memory.estimate(model, replace(setting, engine=engine, world=world, on_machine=on_machine), load)
        return out

    def largest(self, limit: float) -> tuple[int, str] | None:
        """The largest pass of `batches` that keeps to `limit` bytes, with its setting; None where none does."""
        for count, setting in batches(self.recipe, self.stage):
            peak = self.peak_under((setting,))
            if peak is not None and peak <= limit:
                return count, setting
        return None

    def remedies(self, limit: float) -> list[Remedy]:
        """Up to three kinds of change after which the stage keeps to `limit` bytes: one alone where that is enough, else two together."""
        kinds: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for change in _changes(self.recipe, self.stage):
            kinds.setdefault(tuple(text.partition("=")[0] for text in change), []).append(change)
        found: list[Remedy] = []
        for count in (1, 2):
            for chosen in combinations(kinds, count):
                keys = list(chain(*chosen))
                if len(found) < MOST_REMEDIES and len(set(keys)) == len(keys):
                    found += self._first([kinds[kind] for kind in chosen], limit)
            if found:
                break
        return found

    def _first(self, changes: Sequence[Sequence[tuple[str, ...]]], limit: float) -> list[Remedy]:
        """The first of all combinations that keeps to the limit, if the last, which saves most, does."""
        together = [tuple(chain(*settings)) for settings in product(*changes)]
        if (least := self.peak_under(together[-1])) is None or least > limit:
            return []
        peaks = ((settings, self.peak_under(settings)) for settings in together)
        return [next(Remedy(settings, peak) for settings, peak in peaks if peak is not None and peak <= limit)]


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
