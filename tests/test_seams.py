"""The private seams of TRL that omnistage.rl overrides or calls. A failure names what moved; mend the override, then this table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer, SFTTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import utils

LOGPS = (
    "self model input_ids attention_mask logits_to_keep batch_size=None compute_entropy=False compute_aux_loss=False pixel_values=None "
    "image_grid_thw=None num_images=None pixel_attention_mask=None spatial_shapes=None num_tiles=None image_sizes=None token_type_ids=None "
    "mm_token_type_ids=None image_position_ids=None"
)
METHODS = {
    "_tokenize_prompts": "self prompts",
    "_generate_single_turn": "self prompt_ids images multimodal_fields num_generations has_tool_images=False",
    "_generate": "self prompts",
    "_generate_and_score_completions": "self inputs",
    "_log_completion_extra": "self column values",
    "_calculate_rewards": "self inputs prompts completions completion_ids_list",
    "_prepare_inputs": "self generation_batch",
    "_get_per_token_logps_and_entropies": LOGPS,
    "_compute_loss": "self model inputs",
    "_get_train_sampler": "self dataset=None",
    "log": "self logs start_time=None",
}
GENERATION = {
    "generate": "self prompts images num_generations profiler=None",
    "sync_weights": "self",
    "_init_vllm": "self",
    "_iter_named_params": "self",
    "_fix_param_name_to_vllm": "self name extra_prefixes=None",
    "_place_features": "self features prompt_ids",
    "__init__": (
        "self model accelerator processing_class mode='colocate' structured_outputs_regex=None server_base_url=None server_host='0.0.0.0' "
        "server_port=8000 server_timeout=240.0 group_port=51216 tensor_parallel_size=1 gpu_memory_utilization=0.9 max_model_length=None "
        "max_num_seqs=None enable_sleep_mode=False model_impl='auto' trust_remote_code=False repetition_penalty=1.0 temperature=1.0 "
        "top_p=1.0 top_k=0 min_p=0.0 max_completion_length=16 logprobs=0 generation_kwargs=None"
    ),
}
FUNCTIONS = {
    "add_fused_lm_head": "model temperature=1.0 cast_lm_head_to_fp32=False outputs=('log_probs',)",
    "shuffle_sequence_dict": "seq_dict",
    "split_tensor_dict": "tensor_dict num_chunks",
}


def _signature(function: Callable[..., Any]) -> str:
    """Names and defaults in order, without annotations: `self model batch_size=None`."""
    parameters = inspect.signature(function).parameters.values()
    return " ".join(str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in parameters)


def _expect(owner: object, name: str, signature: str) -> None:
    where = f"trl {version('trl')}: {getattr(owner, '__name__', owner)}.{name}"
    function = getattr(owner, name, None)
    assert function is not None, f"{where} is gone"
    found = _signature(function)
    assert found == signature, f"{where} moved\n  relied on: {signature}\n  found:     {found}"


@pytest.mark.parametrize("name", METHODS)
def test_method_of_the_trainer(name: str) -> None:
    _expect(GRPOTrainer, name, METHODS[name])


def test_methods_of_transformers_that_sharding_overrides() -> None:
    for name, signature in {
        "_defer_fsdp_gradient_reduction": "self",
        "_move_model_to_device": "self model device",
        "_save": "self output_dir=None state_dict=None",
        "_save_optimizer_and_scheduler": "self output_dir",
        "_load_optimizer_and_scheduler": "self checkpoint",
    }.items():
        _expect(Trainer, name, signature)
    assert "is_distributed_loading_by_transformers" in inspect.getsource(Trainer._prepare_for_training)


def test_method_of_the_supervised_trainer() -> None:
    _expect(SFTTrainer, "get_batch_samples", "self epoch_iterator num_batches device")


@pytest.mark.parametrize("name", GENERATION)
def test_method_of_its_generation_with_vllm(name: str) -> None:
    _expect(VLLMGeneration, name, GENERATION[name])


def test_what_is_drawn_by_vllm_is_called_as_the_overrides_expect_it() -> None:
    """A request travels as a prompt's only image, and takes TRL's place for it behind each of these calls."""
    here = inspect.getsource(VLLMGeneration.generate)
    for line in (
        'row["multi_modal_data"] = {"image": img_list if len(img_list) > 1 else img_list[0]}',
        "self.llm.generate(vllm_prompts, sampling_params=sampling_params, use_tqdm=False)",
        "self.vllm_client.image_features(all_images[::num_generations])",
    ):
        assert line in here, f"trl {version('trl')}: VLLMGeneration.generate no longer says {line}"
    made = inspect.getsource(VLLMGeneration._init_vllm)
    for line in ("model=model.name_or_path,", "self.llm = LLM("):
        assert line in made, f"trl {version('trl')}: VLLMGeneration._init_vllm no longer says {line}"
    turn = inspect.getsource(GRPOTrainer._generate_single_turn)
    for line in ("if self.state.global_step != self._last_loaded_step:", "self.vllm_generation.sync_weights()", "images=images,"):
        assert line in turn, f"trl {version('trl')}: GRPOTrainer._generate_single_turn no longer says {line}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_of_its_utilities(name: str) -> None:
    _expect(utils, name, FUNCTIONS[name])


def test_the_methods_are_called_where_the_overrides_expect_it() -> None:
    callers = {
        "_prepare_inputs": ["_generate_and_score_completions", "shuffle_sequence_dict", "split_tensor_dict"],
        "_generate_and_score_completions": ["_generate", "_calculate_rewards", "_get_per_token_logps_and_entropies", "_pending_extra_logs"],
        "_generate": ["_tokenize_prompts", "_generate_single_turn"],
        "_compute_loss": ["_get_per_token_logps_and_entropies"],
    }
    for caller, called in callers.items():
        names = inspect.unwrap(getattr(GRPOTrainer, caller)).__code__.co_names
        gone = [name for name in called if name not in names]
        assert not gone, f"trl {version('trl')}: GRPOTrainer.{caller} no longer calls {gone}"


def test_a_list_of_records_follows_its_rows_through_shuffle_and_split() -> None:
    """Media records ride along as a plain list: row i of every tensor must still stand beside record i."""
    torch.manual_seed(0)
    batch = {"ids": torch.arange(8), "records": [f"record {i}" for i in range(8)], "scalar": torch.tensor(3.0), "none": None}
    shuffled = utils.shuffle_sequence_dict(batch)
    order = shuffled["ids"].tolist()
    assert sorted(order) == list(range(8))
    assert order != list(range(8))
    assert shuffled["records"] == [f"record {i}" for i in order]
    chunks = utils.split_tensor_dict(shuffled, 4)
    assert [chunk["ids"].tolist() for chunk in chunks] == [order[i : i + 2] for i in range(0, 8, 2)]
    assert [chunk["records"] for chunk in chunks] == [[f"record {j}" for j in order[i : i + 2]] for i in range(0, 8, 2)]
