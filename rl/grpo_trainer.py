"""GRPO on records with video and sound: TRL's `GRPOTrainer` with its eyes and ears kept open.

For a prompt with completions o_1..o_G, rewards r_i and advantages A_i = (r_i - mean r) / (std r + 1e-4), a step maximises

    sum_i sum_t min(w_it A_i, clip(w_it, 1 - eps, 1 + eps) A_i) - beta KL(policy || reference),   w_it = policy / rollout policy

(GRPO: Shao et al. 2024, arXiv 2402.03300; token-level sum `dapo`: Yu et al. 2025, arXiv 2503.14476). Loss types, advantages, rewards,
logging, distribution and checkpoints are TRL's; nothing of them is copied. What is different here:

- a row is a record; its prompt is decoded, processed and (under frozen towers) encoded once, however many completions it gets; what the
  next step reads is prepared while this one trains (`prefetch`);
- the same media and the same positions go into rollout, old, reference and policy passes; stock TRL drops video and sound after
  the rollout; a batch that would be scored without its media raises `BlindBatchError`;
- the prompt of a group is computed once in each of these passes (`shared_prefix`);
- where TRL wants the rollout policy's log-probs (`old_per_token_logps`) and all is float32, those noted while sampling are taken and no
  pass is made; in half precision a rollout rounds otherwise than a pass does, which would enter w_it, so the pass is made;
- media tokens are never sampled, prompts are never cut;
- a step holds one modality (`StepSampler`);
- groups whose rewards are all equal can be replaced by other prompts before a step learns from them (`refill`);
- vLLM can draw the completions (`vllm_rollout`), with the prompt's media and a check that it reads the same ids;
- a reward may concern the thinking or the answer alone (`credit`), and each reward is logged by modality and by task;
- every completion can be recorded with its rewards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from trl import GRPOConfig
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from omnistage.data import prompts
from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rewards import base
from omnistage.rewards.rollouts import SOUND
from omnistage.rl import rollout
from omnistage.rl.encoding import Encoded, Encoder, check_not_blind, positions_with_completions
from omnistage.rl.feature_metrics import LogsFeatures
from omnistage.rl.fully_sharded import ShardsFully, gathered
from omnistage.rl.heads import carried
from omnistage.rl.heads.predict import Reader
from omnistage.rl.policy import accept_encoded_audio, active_adapters, forbidden_tokens, is_sharded, thinker_of, without_dropout
from omnistage.rl.prefetch import Prefetch, PreparesAhead
from omnistage.rl.refill import Refilling
from omnistage.rl.resume import ResumesWhole
from omnistage.rl.rewarded import Recorder
from omnistage.rl.sampler import Pool, StepSampler
from omnistage.rl.shared_prefix import decode, forward
from omnistage.rl.shared_prefix.check import Setting, Sharing
from omnistage.rl.shared_prefix.graphed import Graphs
from omnistage.rl.shared_prefix.layout import pack
from omnistage.rl.towers import Towers
from omnistage.rl.vllm_rollout import generation as vllm
from omnistage.rl.vllm_rollout import requests


def rows_of(records: Sequence[Record], template: str, system: str | None) -> list[dict[str, Any]]:
    """Training rows: the prompt as messages (with paths, never tensors) and the columns that rewards receive."""
    return [{"prompt": prompts.render(record, template, system)} | base.columns_of(record) for record in records]


class OmniGRPOTrainer(ShardsFully, ResumesWhole, PreparesAhead, LogsFeatures, Refilling):
    """TRL's trainer for a Qwen2.5-Omni thinker.

    `records` are the stage's rows, `pools` say which of them are drawn together and how often, `encoder` makes inputs of them. `reference`
    names the folder of the KL reference where `args.beta` is above zero (None: the folder that the policy was loaded from). `recorder`
    gets all completions of a step: the columns of the row, `group`, `prompt`, `messages` (as JSON), `completion`, `completion_ids`,
    `reward/NAME` (None: not scored), `advantage` of the whole completion and `advantage/SEGMENT` of its segments. `shared_prefix` says how
    completions are scored, `refill_rounds` how often a step may draw further prompts for groups without spread. With `vllm_settings` vLLM
    draws instead of the policy.
    """

    # TRL's: the parts of the last rollouts.
    _buffered_inputs: Any

    def __init__(
        self,
        model: PreTrainedModel,
        reward_funcs: Sequence[Any],
        *,
        args: GRPOConfig,
        records: Sequence[Record],
        pools: Sequence[Pool],
        encoder: Encoder,
        reference: str | None = None,
        recorder: Recorder | None = None,
        shared_prefix: Setting = "auto",
        refill_rounds: int = 0,
        vllm_settings: vllm.Settings | None = None,
        **kwargs: Any,
    ) -> None:
        from datasets import Dataset

        self.records: Mapping[str, Record] = {record.id: record for record in records}
        if len(self.records) != len(records):
            raise ValueError("two records share an id")
        self.pools = list(pools)
        self.encoder = encoder
        self.prefetch = Prefetch(encoder)
        self.recorder = recorder
        self.graphs = Graphs()
        self.refill_rounds = refill_rounds
        self._rows: list[Encoded] = []
        self._shown_records: list[Record] = []
        # The last rollout of the step in hand: what was drawn, for each of which prompts, and the adapters that drew it.
        self._noted: tuple[decode.Drawn, list[Encoded], tuple[str, ...]] | None = None
        args.remove_unused_columns = False
        args.generation_kwargs = {"suppress_tokens": forbidden_tokens(encoder.processor)} | (args.generation_kwargs or {})
        # TRL loads the reference from wherever the policy's configuration says that it came from.
        config = thinker_of(model).config
        origin = config._name_or_path
        config._name_or_path = reference or origin
        try:
            super().__init__(
                model,
                list(reward_funcs),
                args=args,
                train_dataset=Dataset.from_list(rows_of(records, encoder.template, encoder.system)),
                processing_class=encoder.processor,
                **kwargs,
            )
        finally:
            config._name_or_path = origin
        self._check_batching()
        if self.needs_heads and not carried.heads_of(thinker_of(self.model)):
            raise InputError("reward 'head': the policy carries no head; a stage of kind 'head' before this one makes one")
        self._share(shared_prefix)
        self._towers: dict[int, Towers] = {}
        if self.ref_model is not None:
            accept_encoded_audio(thinker_of(self.ref_model))
            # TRL never trains it but leaves it trainable; frozen, its towers encode each prompt once, too.
            self.ref_model.requires_grad_(False)
        if vllm_settings is not None:
            if self.refill_rounds or self.needs_shuffled:
                raise ValueError("vLLM draws the completions of a step's prompts alone: no refills, and no reward that asks for others")
            vllm.attach(self, vllm_settings, forbidden_tokens(encoder.processor))

    def _share(self, setting: Setting) -> None:
        thinkers = [thinker_of(model) for model in (self.model, self.ref_model) if model is not None]
        # Plain `eager` attention is for looking into it; it has no shared way.
        eager = thinkers[0].config.get_text_config()._attn_implementation == "eager"
        half = self.args.bf16 or self.args.fp16 or thinkers[0].dtype != torch.float32
        chosen = "off" if eager and setting == "auto" else setting
        self.sharing = Sharing(chosen, self._most, half=half, device=self.accelerator.device.type)
        if self.sharing.mode is not None:
            for thinker in thinkers:
                forward.install(thinker, temperature=self.temperature, head_in_float32=self.args.cast_lm_head_to_fp32)

    def _most(self, value: float) -> float:
        """The largest of all processes' values."""
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).max())

    def _check_batching(self) -> None:
        local = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if local % self.num_generations:
            raise ValueError(
                f"a process must hold whole groups: per_device_train_batch_size * steps_per_generation is {local}, "
                f"which num_generations {self.num_generations} does not divide"
            )

    def towers(self, model: torch.nn.Module) -> Towers:
        """The towers of the policy or of the reference."""
        thinker = thinker_of(model)
        if id(thinker) not in self._towers:
            self._towers[id(thinker)] = Towers(thinker, self.encoder.feature_cache)
        return self._towers[id(thinker)]

    def towers_in_use(self) -> Sequence[Towers]:
        return list(self._towers.values())

    def _get_train_sampler(self, dataset: Any = None) -> StepSampler:
        passes = self.num_iterations * self.args.steps_per_generation
        prompts_per_step = self.args.generation_batch_size // self.num_generations
        rounds = -(-self.args.max_steps * self.args.gradient_accumulation_steps // passes)
        return StepSampler(
            self.pools, prompts=prompts_per_step, steps=rounds, repeats=self.num_generations, passes=passes, seed=self.args.seed
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The part of a step's completions that is due, as TRL's, but whole groups (or equal slices of them) stay in one part.

        TRL shuffles single completions over the parts; each part would then compute nearly every prompt of the step.
        """
        parts = self.args.steps_per_generation
        if not self.model.training or parts == 1:
            return super()._prepare_inputs(generation_batch)
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            block = math.gcd(self.args.per_device_train_batch_size, self.num_generations)
            order = torch.randperm(len(self._rows) // block)[:, None] * block + torch.arange(block)
            self._buffered_inputs = split_tensor_dict(_permuted(batch, order.flatten()), parts)
        return self._buffered_inputs[self._step % parts]

    # Rollout: from rows to ids, from ids to completions.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(self._shown(inputs))
        self._noted = None
        output["encoded"] = self._rows
        vllm.check_agreement(self._metrics[self._mode])
        self._log_media(self._mode)
        return output

    def _shown(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._shown_records = records = [self.records[row["record_id"]] for row in inputs]
        rows = self._read([*records, *self._shuffled(records[:: self.num_generations])])
        self._rows = rows[: len(inputs)]
        if self.needs_shuffled:
            texts = self._texts_of(rows[len(inputs) :], len(inputs))
            inputs = [row | {"shuffled": of_group} for row, of_group in zip(inputs, texts, strict=True)]
        return inputs

    def _read(self, records: Sequence[Record]) -> list[Encoded]:
        """Inputs of these records; those of the next step are begun."""
        if self.model.training:
            passes = self.num_iterations * self.args.steps_per_generation
            prompts_here = self.args.per_device_train_batch_size * self.args.steps_per_generation // self.num_generations
            done = self.state.global_step * self.args.gradient_accumulation_steps // passes
            self._follow(prompts_here, done)
        return self.prefetch.take(records)

    def _asked(self, records: Sequence[Record]) -> list[Record]:
        return [*records, *self._shuffled(records)]

    def recorded(self, record_id: str) -> dict[str, Any]:
        """What a recorded completion says of its record: the columns of rewards, the question as it is asked, and what was heard."""
        record = self.records[record_id]
        shown = {"prompt": prompts.text(record, self.encoder.template), SOUND: [ref.sound for ref in record.media]}
        return base.columns_of(record) | shown

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        if len(prompts) != len(self._rows):
            raise RuntimeError(f"{len(prompts)} prompts for {len(self._rows)} encoded rows")
        return [row.ids for row in self._rows], None, {}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        if (settled := self._settled_ids()) is not None:
            return settled, None
        group_heads = self._rows[::num_generations]
        if any(row is not group_heads[index // num_generations] for index, row in enumerate(self._rows)):
            raise RuntimeError(f"the rows of a group of {num_generations} do not stand together")
        if not self.use_vllm:
            return self._sample(group_heads, num_generations), None
        self._noted = None
        asked = [[request] for request in self._requests(num_generations) for _ in range(num_generations)]
        drawn: tuple[list[list[int]], list[list[float]]] = super()._generate_single_turn(prompt_ids, asked, {}, num_generations)
        return drawn

    def _requests(self, num_generations: int) -> list[requests.Request]:
        """What vLLM is asked for each group."""
        made = []
        for row, record in zip(self._rows[::num_generations], self._shown_records[::num_generations], strict=True):
            where = record.source or record.id
            if self.vllm_generation.mode == "server":
                encode = partial(vllm.encoded_by_vllm, merge=self.encoder.processor.image_processor.merge_size)
                made.append(requests.served(row, self.encoder, where, encode))
            else:
                made.append(requests.colocated(row, self.encoder.clips_of(record), self.encoder, where))
        return made

    def _sample(self, heads: Sequence[Encoded], num_generations: int) -> list[list[int]]:
        """Token ids of completions, group after group, each cut behind its end token."""
        with (
            profiling_context(self, "rollout"),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            gathered(model),
            self.accelerator.autocast(),
            without_dropout(model),
        ):
            thinker = thinker_of(model)
            settings: dict[str, Any] = {
                "num_generations": num_generations,
                "pad_id": self._tokenizer.pad_token_id,
                "generation_config": self.generation_config,
            }
            # Sharded weights want all ranks in every step, which transformers' own loop sees to.
            if self.sharing.mode is None or is_sharded(thinker):
                self._noted = None
                completions = rollout.generate(thinker, self.towers(model), heads, **settings)
            else:
                settings |= {"temperature": self.temperature, "graphs": self.graphs}
                drawn = decode.generate(thinker, self.towers(model), heads, **settings)
                self._noted = drawn, [row for row in heads for _ in range(num_generations)], active_adapters(thinker)
                completions = drawn.ids
        return rollout.until_end(completions, self.eos_token_ids)

    def _shuffled(self, records: Sequence[Record]) -> list[Record]:
        """The records with their frames out of order, if a reward asks for that; none where no picture moves."""
        # A step holds one modality, so all ranks sample or none does.
        if not self.needs_shuffled or not any(ref.kind == "video" for record in records for ref in record.media):
            return []
        return [
            record.with_media(tuple(replace(ref, shuffle=self.args.seed) if ref.kind == "video" else ref for ref in record.media))
            for record in records
        ]

    def _texts_of(self, shuffled: Sequence[Encoded], rows: int) -> list[list[str]]:
        """For each of `rows` rows, texts of half a group's completions of its prompt in `shuffled`; none where that is empty."""
        if not shuffled:
            return [[] for _ in range(rows)]
        count = max(1, self.num_generations // 2)
        texts = [self._decoded(ids) for ids in self._sample(shuffled, count)]
        groups = [texts[at * count : (at + 1) * count] for at in range(len(shuffled))]
        return [groups[at // self.num_generations] for at in range(rows)]

    def head_values(self, completion_ids: Sequence[Sequence[int]]) -> list[dict[str, list[dict[str, Any]]]]:
        """What each head of the policy reads off the completions (token ids) of this process's rows, with all units."""
        found: list[dict[str, list[dict[str, Any]]]] = [{} for _ in completion_ids]
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, gather_deepspeed3_params=self.args.ds3_gather_for_generation
            ) as model,
            gathered(model),
            self.accelerator.autocast(),
            without_dropout(model),
        ):
            # Each row has a copy of its prompt here, so the groups of a shared forward would not fit.
            thinker, size = thinker_of(model), min(self.args.per_device_train_batch_size, self.num_generations)
            for name, head in carried.heads_of(thinker).items():
                reader = Reader(thinker, self.encoder, head, towers=self.towers(model))
                for start in range(0, len(completion_ids), size):
                    values = reader.values(self._rows[start : start + size], completion_ids[start : start + size])
                    for at, read in enumerate(values, start=start):
                        found[at][name] = read
        return found

    # Scoring: the same media and positions for old, reference and policy passes.

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        self._rows = inputs["encoded"]
        loss: Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **media: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """Log-probs [B, C] (and entropies) of the completions in `input_ids` [B, P + C], with each row's media."""
        batch_size = batch_size or len(input_ids)
        drawn = None if compute_entropy else self._noted_by(model, input_ids[:, -logits_to_keep:])
        log_probs: list[Tensor] = []
        entropies: list[Tensor] = []
        for start in range(0, len(input_ids), batch_size):
            chunk = slice(start, start + batch_size)
            ids, mask, rows = input_ids[chunk], attention_mask[chunk], self._rows[chunk]
            check_not_blind(thinker_of(model), ids, rows)
            plain, shared = partial(self._plain, model), partial(self._shared, model)
            # Two passes drop different units, which is no difference of the two ways.
            with without_dropout(model):
                self.sharing.prove(rows, ids, mask, logits_to_keep, plain, shared, None if drawn is None else drawn[chunk])
            if drawn is not None and self.sharing.mode is not None and self.sharing.reuse:
                log_probs.append(drawn[chunk])
                continue
            score = plain if self.sharing.mode is None else shared
            # Completions are drawn with all units: so are the log-probs made that the policy is held against.
            units = nullcontext() if torch.is_grad_enabled() else without_dropout(model)
            with self.accelerator.autocast(), units:
                made = score(rows, ids, mask, logits_to_keep, compute_entropy)
            log_probs.append(made[0])
            entropies += [made[1]] if made[1] is not None else []
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _noted_by(self, model: torch.nn.Module, completions: Tensor) -> Tensor | None:
        """Log-probs [B, C] of the rollout in hand if `model`, with the adapters that are on now, drew these very completions [B, C] of
        these very prompts on every process. Of a step whose groups were replaced the last draw is not all of it."""
        # Noted numbers have no graph: a pass that learns is always made.
        if self._noted is None or model is not self.model or not self.sharing.reuse or torch.is_grad_enabled():
            return None
        (ids, log_probs), prompts, adapters = self._noted
        if active_adapters(model) != adapters:
            return None
        # TRL may pad to a multiple, the loop behind the last end: a negative number cuts.
        more = completions.shape[1] - ids.shape[1]
        same = [id(row) for row in prompts] == [id(row) for row in self._rows]
        same = same and torch.equal(pad(ids, (0, more), value=self._tokenizer.pad_token_id), completions)
        # A pass on some processes alone would wait for ever where the weights are sharded.
        return None if self._most(float(not same)) else pad(log_probs, (0, more))

    def _plain(
        self, model: torch.nn.Module, rows: Sequence[Encoded], ids: Tensor, mask: Tensor, width: int, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs [B, C] and entropies, each row with its own copy of the prompt."""
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :-width] = -100
        positions = positions_with_completions(rows, ids.shape[1] - width, width)
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.to(ids.device),
            labels=labels,
            fused_lm_head=True,
            **self.towers(model).media(rows, ids.device),
        )
        return output.log_probs[:, -width:], output.entropy[:, -width:] if entropy else None

    def _shared(
        self, model: torch.nn.Module, rows: Sequence[Encoded], ids: Tensor, mask: Tensor, width: int, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The same with one copy of each prompt."""
        packed = pack(rows, ids[:, -width:], mask[:, -width:])
        media = self.towers(model).media(packed.heads, ids.device)
        output = model(packed=packed, packed_mode=self.sharing.mode, entropy=entropy, **media)
        return output.log_probs, output.entropy


def _permuted(batch: Mapping[str, Any], order: Tensor) -> dict[str, Any]:
    """Each value of a row (a tensor's first axis, a list's entries) in another order; numbers of the whole batch as they are."""

    def permuted(values: Any) -> Any:
        if values is None or isinstance(values, Tensor):
            return values[order] if values is not None and values.ndim else values
        return [values[at] for at in order.tolist()]

    return {name: permuted(values) for name, values in batch.items()}
