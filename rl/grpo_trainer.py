"""GRPO on records with video and sound: TRL's `GRPOTrainer` with its eyes and ears kept open.

For a prompt with completions o_1..o_G, rewards r_i and advantages A_i = (r_i - mean r) / (std r + 1e-4), a step maximises

    sum_i sum_t min(w_it A_i, clip(w_it, 1 - eps, 1 + eps) A_i) - beta KL(policy || reference),   w_it = policy / rollout policy

(GRPO: Shao et al. 2024, arXiv 2402.03300; token-level sum `dapo`: Yu et al. 2025, arXiv 2503.14476). Loss types, advantages, rewards,
logging, distribution and checkpoints are TRL's; nothing of them is copied. What is different here:

- a row is a record; its prompt is decoded, processed and (under frozen towers) encoded once, however many completions it gets;
- the same media and the same positions go into rollout, old, reference and policy passes; stock TRL drops video and sound after
  the rollout; - a batch that would be scored without its media raises `BlindBatchError`;
- media tokens are never sampled, prompts are never cut;
- a step holds one modality (`StepSampler`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation

from omnistage.data import prompts
from omnistage.data.records import Record
from omnistage.rl import rollout
from omnistage.rl.encoding import Encoded, Encoder, Towers, check_not_blind, positions_with_completions
from omnistage.rl.policy import accept_encoded_audio, forbidden_tokens, thinker_of
from omnistage.rl.resume import ResumesWhole
from omnistage.rl.sampler import Pool, StepSampler


def rows_of(records: Sequence[Record], template: str, system: str | None) -> list[dict[str, Any]]:
    """Training rows: the prompt as messages (with paths, never tensors) and the columns that rewards receive."""
    return [
        {
            "prompt": prompts.render(record, template, system),
            "record_id": record.id,
            "target": record.target,
            "kind": str(record.kind),
            "options": list(record.options),
            "task": record.task,
            "modality": str(record.modality),
            "media": [ref.path for ref in record.media],
        }
        for record in records
    ]


class OmniGRPOTrainer(ResumesWhole, GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer for a Qwen2.5-Omni thinker.

    `records` are the stage's rows, `pools` say which of them are drawn together and how often, `encoder` makes inputs of them. `reference`
    names the folder of the KL reference where `args.beta` is above zero (None: the folder that the policy was loaded from).
    """

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
        **kwargs: Any,
    ) -> None:
        from datasets import Dataset

        self.records: Mapping[str, Record] = {record.id: record for record in records}
        if len(self.records) != len(records):
            raise ValueError("two records share an id")
        self.pools = list(pools)
        self.encoder = encoder
        self._rows: list[Encoded] = []
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
        self._towers: dict[int, Towers] = {}
        if self.ref_model is not None:
            accept_encoded_audio(thinker_of(self.ref_model))
            # TRL never trains it but leaves it trainable; frozen, its towers encode each prompt once, too.
            self.ref_model.requires_grad_(False)

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
            self._towers[id(thinker)] = Towers(thinker)
        return self._towers[id(thinker)]

    def _get_train_sampler(self, dataset: Any = None) -> StepSampler:
        passes = self.num_iterations * self.args.steps_per_generation
        prompts_per_step = self.args.generation_batch_size // self.num_generations
        rounds = -(-self.args.max_steps * self.args.gradient_accumulation_steps // passes)
        return StepSampler(
            self.pools, prompts=prompts_per_step, steps=rounds, repeats=self.num_generations, passes=passes, seed=self.args.seed
        )

    # Rollout: from rows to ids, from ids to completions.

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = [self.encoder(self.records[row["record_id"]]) for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        output["encoded"] = self._rows
        return output

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        if len(prompts) != len(self._rows):
            raise RuntimeError(f"{len(prompts)} prompts for {len(self._rows)} encoded rows")
        return [row.ids for row in self._rows], None, {}

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], None]:
        group_heads = self._rows[::num_generations]
        if any(row is not group_heads[index // num_generations] for index, row in enumerate(self._rows)):
            raise RuntimeError(f"the rows of a group of {num_generations} do not stand together")
        with (
            profiling_context(self, "rollout"),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            self.accelerator.autocast(),
        ):
            completions = rollout.generate(
                thinker_of(model),
                self.towers(model),
                group_heads,
                num_generations=num_generations,
                pad_id=self._tokenizer.pad_token_id,
                generation_config=self.generation_config,
            )
        return rollout.until_end(completions, self.eos_token_ids), None

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
        log_probs, entropies = [], []
        for start in range(0, len(input_ids), batch_size):
            chunk = slice(start, start + batch_size)
            ids, rows = input_ids[chunk], self._rows[chunk]
            check_not_blind(thinker_of(model), ids, rows)
            labels = ids.masked_fill(attention_mask[chunk] == 0, -100)
            labels[:, :-logits_to_keep] = -100
            positions = positions_with_completions(rows, ids.shape[1] - logits_to_keep, logits_to_keep)
            with self.accelerator.autocast():
                output = model(
                    input_ids=ids,
                    attention_mask=attention_mask[chunk],
                    position_ids=positions.to(ids.device),
                    labels=labels,
                    fused_lm_head=True,
                    **self.towers(model).media(rows, ids.device),
                )
            log_probs.append(output.log_probs[:, -logits_to_keep:])
            if compute_entropy:
                entropies.append(output.entropy[:, -logits_to_keep:])
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None
