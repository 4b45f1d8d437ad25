"""Rollout with vLLM, as far as it goes without vLLM: what is asked, by the processor that vLLM calls; names of weights; TRL's own calls."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import Qwen2_5OmniConfig
from trl.generation import vllm_client, vllm_generation

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.launch import doctor
from omnistage.rl import policy
from omnistage.rl.encoding import Encoded, Encoder
from omnistage.rl.heads import carried
from omnistage.rl.heads.spec import HeadSpec
from omnistage.rl.vllm_rollout import generation, requests, requirements
from omnistage.stages import checks, grpo
from omnistage.stages.recipe import loading as recipes
from trainers import trainer_for
from world import World

SCORE = {"name": "score", "codec": {"kind": "affine", "low": 1.0, "high": 5.0}, "losses": [{"name": "l1"}]}
KINDS = ("video", "audio", "image", "silent", "text")


def _records(world: World) -> dict[str, Record]:
    mixed = world.mixed()
    text = replace(mixed[0], id="text", media=())
    return {"video": mixed[0], "audio": mixed[1], "image": mixed[-1], "silent": mixed[-2], "text": text, "heard": mixed[2]}


@pytest.fixture(scope="module")
def encoder(world: World) -> Encoder:
    return world.encoder(world.model())


def _as_vllm(encoder: Encoder, request: requests.Request) -> tuple[list[int], Mapping[str, Any]]:
    """What vLLM 0.30 makes of a request: its processor on the media under a text of bare placeholders, then, in the prompt, each
    placeholder repeated as often as its medium has features."""
    assert request.content is not None
    asked, processor = request.content, encoder.processor
    media = asked.get("multi_modal_data", {})
    tokens = {"audio": processor.audio_token, "image": processor.image_token, "video": processor.video_token}
    batch: Mapping[str, Any] = {}
    if media:
        arguments = {{"video": "videos", "image": "images", "audio": "audio"}[sense]: items for sense, items in media.items()}
        text = "".join(token * len(media.get(sense, [])) for sense, token in tokens.items())
        batch = processor(text=text, **arguments, return_tensors="pt", **{"truncation": False, **asked["mm_processor_kwargs"]})
    merge = processor.image_processor.merge_size**2
    counts = {
        processor.video_token_id: (batch["video_grid_thw"].prod(-1) // merge).tolist() if "video" in media else [],
        processor.image_token_id: (batch["image_grid_thw"].prod(-1) // merge).tolist() if "image" in media else [],
        processor.audio_token_id: [((int(m.sum()) - 1) // 2 - 1) // 2 + 1 for m in batch["feature_attention_mask"]]
        if "audio" in media
        else [],
    }
    ids: list[int] = []
    for token in asked["prompt_token_ids"]:
        ids += [token] * (counts[token].pop(0) if token in counts else 1)
    assert not any(counts.values())
    return ids, batch


@pytest.mark.parametrize("kind", KINDS)
def test_the_processor_makes_of_a_request_what_training_reads(world: World, encoder: Encoder, kind: str) -> None:
    record = _records(world)[kind]
    row = encoder(record)
    ids, batch = _as_vllm(encoder, requests.colocated(row, encoder.clips_of(record), encoder, "here"))
    assert ids == row.ids
    for ours, theirs in ((row.pictures, "pixel_values_videos"), (row.grid, "video_grid_thw"), (row.stills, "pixel_values")):
        assert (ours is None) == (theirs not in batch)
        assert ours is None or torch.equal(ours, batch[theirs])
    if row.second_per_grid is not None:
        assert row.second_per_grid.tolist() == pytest.approx([float(value) for value in batch["video_second_per_grid"]])
    masks = batch.get("feature_attention_mask", [])
    assert len(masks) == len(row.mels)
    for at, mel in enumerate(row.mels):
        assert torch.equal(mel, batch["input_features"][at][:, masks[at].bool()])


def test_other_settings_of_the_processor_would_be_seen(world: World, encoder: Encoder) -> None:
    record = _records(world)["video"]
    row = encoder(record)
    request = requests.colocated(row, encoder.clips_of(record), encoder, "clips.json: row 3")
    assert request.content is not None
    settings = {
        "videos_kwargs": request.content["mm_processor_kwargs"]["videos_kwargs"] | {"size": {"shortest_edge": 784, "longest_edge": 784}}
    }
    ids, _ = _as_vllm(encoder, replace(request, content={**request.content, "mm_processor_kwargs": settings}))
    with pytest.raises(requests.OtherPromptError, match=rf"clips.json: row 3: vLLM read a prompt of {len(ids)} tokens"):
        requests.check_same(request, ids)


def test_interleaved_sound_is_refused(world: World, encoder: Encoder) -> None:
    record = _records(world)["heard"]
    row = encoder(record)
    assert row.audio_in_video
    told = r"a\.json: row 1: a video that is heard cannot be drawn with vLLM"
    with pytest.raises(InputError, match=told):
        requests.colocated(row, encoder.clips_of(record), encoder, "a.json: row 1")
    with pytest.raises(InputError, match=told):
        requests.served(row, encoder, "a.json: row 1", _encode)


def _encode(batch: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Stands for vLLM's own writer of tensors: one text for all media of a sense's first."""
    buffer = io.BytesIO()
    torch.save(dict(batch), buffer)
    text = base64.b64encode(buffer.getvalue()).decode()
    senses = {"pixel_values_videos": "video", "pixel_values": "image", "input_audio_features": "audio"}
    return {sense: [text] for name, sense in senses.items() if name in batch}


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_gets_the_ids_and_tensors_of_training(world: World, encoder: Encoder, kind: str) -> None:
    row = encoder(_records(world)[kind])
    request = requests.served(row, encoder, "here", _encode)
    assert request.ids == row.ids
    if kind == "text":
        assert request.content is None
        return
    assert request.content is not None
    sense = "video" if kind == "silent" else kind
    (place,) = request.content["mm_placeholders"][sense]
    token = requests.media_tokens(encoder)[sense]  # type: ignore[index]
    assert [at for at, i in enumerate(row.ids) if i == token] == list(range(place["offset"], place["offset"] + place["length"]))
    assert set(request.content["mm_hashes"]) == set(request.content["kwargs_data"]) == {sense}
    sent = torch.load(io.BytesIO(base64.b64decode(request.content["kwargs_data"][sense][0])))
    if row.pictures is not None:
        assert torch.equal(sent["pixel_values_videos"], row.pictures)
    if row.mels:
        assert torch.equal(sent["input_audio_features"], row.mels[0])
        assert sent["audio_feature_lengths"].tolist() == [row.mels[0].shape[1]]


def test_media_share_a_name_only_if_the_model_reads_the_same(world: World, encoder: Encoder) -> None:
    rows = [encoder(record) for record in world.records("video")[:2]]
    first, second = (requests.hashes(row)["video"] for row in rows)
    assert first != second
    assert rows[0].second_per_grid is not None
    assert requests.hashes(replace(rows[0], second_per_grid=rows[0].second_per_grid * 2))["video"] != first
    assert requests.hashes(replace(rows[0]))["video"] == first


def test_placeholders_that_do_not_fit_the_media_are_refused(world: World, encoder: Encoder) -> None:
    record = _records(world)["video"]
    row = encoder(record)
    with pytest.raises(requests.OtherPromptError, match="here: 0 media of video and 1 runs of placeholders"):
        requests.colocated(row, [], encoder, "here")
    token = requests.media_tokens(encoder)["video"]
    short = replace(row, ids=[i for at, i in enumerate(row.ids) if i != token or row.ids[at - 1] != token])
    with pytest.raises(requests.OtherPromptError, match="do not fit the media"):
        requests.served(short, encoder, "here", _encode)


# Weights.


def _published(world: World) -> set[str]:
    """The names in the checkpoint of the whole model: a thinker's own, as transformers writes them, under `thinker.`."""
    with safe_open(world.checkpoint / "model.safetensors", "pt") as file:
        return {f"thinker.{name}" for name in file.keys()}  # noqa: SIM118


def _handed_over(model: Any) -> dict[str, torch.Tensor]:
    """What TRL's own walk over the weights hands to vLLM."""
    made = generation.OmniVLLMGeneration.__new__(generation.OmniVLLMGeneration)
    made.model = model
    made._dist = SimpleNamespace(gather_params=lambda _: torch.no_grad(), is_fsdp=False)
    return {name: value.clone() for name, value in made._iter_named_params()}


def test_weights_have_the_names_of_the_published_checkpoint(world: World) -> None:
    assert set(_handed_over(world.model())) == _published(world)


def test_adapters_are_handed_over_merged(world: World) -> None:
    plain = _handed_over(world.model())
    model = get_peft_model(world.model(), LoraConfig(target_modules=r"model\.language_model\..*q_proj", r=2, init_lora_weights=False))
    handed = _handed_over(model)
    assert set(handed) == _published(world)
    changed = {name for name in handed if not torch.equal(handed[name], plain[name])}
    assert changed == {name for name in handed if name.startswith("thinker.model.layers.") and name.endswith("q_proj.weight")}
    merged = model.merge_and_unload()
    name = "thinker.model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(handed[name], merged.model.language_model.layers[0].self_attn.q_proj.weight)


def test_a_head_stays_here(world: World) -> None:
    model = world.model()
    carried.add(model, HeadSpec.model_validate(SCORE))
    assert any(name.startswith(carried.MODULE) for name, _ in model.named_parameters())
    assert set(_handed_over(model)) == _published(world)
    with pytest.raises(ValueError, match="no weight of a thinker"):
        generation.published_name("model.talker.weight")


def test_the_folder_is_a_whole_omni_model_of_this_thinker(world: World, tmp_path: Path) -> None:
    model = world.model()
    generation.write_shell(model, policy.load_processor(str(world.checkpoint)), tmp_path, torch.bfloat16)
    config = Qwen2_5OmniConfig.from_pretrained(tmp_path)
    assert config.architectures == ["Qwen2_5OmniModel"]
    assert config.dtype == torch.bfloat16
    for part in ("text_config", "vision_config", "audio_config"):
        ours, theirs = (getattr(one, part).to_dict() for one in (model.config, config.thinker_config))
        assert {**theirs, "dtype": None} == {**ours, "dtype": None}
    assert config.thinker_config.audio_token_index == model.config.audio_token_index
    assert policy.load_processor(str(tmp_path)).tokenizer.get_vocab() == policy.load_processor(str(world.checkpoint)).tokenizer.get_vocab()


# What TRL's generation does, with an engine that writes down what it is asked.


class Engine:
    """Stands for `vllm.LLM`: writes down the order of calls and draws what it is given, as probable as it is given."""

    def __init__(self, encoder: Encoder, log: list[str], log_prob: float = -3.0) -> None:
        self.encoder, self.log, self.log_prob = encoder, log, log_prob
        self.asked: list[Mapping[str, Any]] = []
        self.loaded: dict[str, torch.Tensor] = {}
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=self))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        if not self.log or self.log[-1] != "weights":
            self.log.append("weights")
        self.loaded |= {name: value.clone() for name, value in weights}

    def reset_prefix_cache(self) -> None:
        self.log.append("reset")

    def generate(self, prompts: list[Mapping[str, Any]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.log.append("generate")
        self.params, outputs = sampling_params, []
        for prompt in prompts:
            self.asked.append(prompt)
            ids, _ = _as_vllm(self.encoder, requests.Request("", [], prompt))
            drawn = [40 + len(self.asked), 41, self.encoder.processor.tokenizer.eos_token_id]
            noted = [{token: SimpleNamespace(rank=1, logprob=self.log_prob)} for token in drawn]
            outputs.append(SimpleNamespace(prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=drawn, logprobs=noted)]))
        return outputs


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> Engine:
    """TRL's generation runs, in the process that trains, with a stand-in for vLLM alone."""
    found = Engine(encoder, [])

    def start(self: Any) -> None:
        self.llm, self._llm_weights_sleeping = generation.AskingWithMedia(found), False

    monkeypatch.setattr(generation.OmniVLLMGeneration, "_init_vllm", start)
    monkeypatch.setattr(vllm_generation, "SamplingParams", lambda **given: given, raising=False)
    return found


def _trainer(world: World, tmp_path: Path, records: list[Record], **settings: Any) -> Any:
    return trainer_for(world, records, tmp_path, vllm_settings=generation.Settings(), **settings)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_weights_go_over_once_a_step_before_the_first_draw(world: World, tmp_path: Path, engine: Engine, kind: str) -> None:
    engine.log_prob = -5.0
    trainer = _trainer(world, tmp_path, world.records(kind)[:4], max_steps=2)
    sizes = len(trainer.processing_class.tokenizer)
    engine.log_prob = -float(np.log(sizes))
    before = {name: value.clone() for name, value in _handed_over(trainer.model).items()}
    trainer.train()
    assert engine.log == ["weights", "reset", "generate"] * 2
    assert all(prompt["multi_modal_data"][kind] for prompt in engine.asked)
    assert len(engine.asked) == 8
    moved = [name for name in before if not torch.equal(before[name], engine.loaded[name])]
    assert moved, "the second step's weights are those after the first"
    assert set(engine.params["logit_bias"]) == set(policy.forbidden_tokens(trainer.processing_class))
    assert engine.params["stop_token_ids"] == trainer.eos_token_ids
    logged = {name for row in trainer.state.log_history for name in row}
    assert {"sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio/mean"} <= logged


def test_weights_go_over_once_for_several_passes_of_a_step(world: World, tmp_path: Path, engine: Engine) -> None:
    trainer = _trainer(world, tmp_path, world.records("video")[:4], max_steps=1, gradient_accumulation_steps=2, steps_per_generation=1)
    engine.log_prob = -float(np.log(len(trainer.processing_class.tokenizer)))
    trainer.train()
    assert engine.log == ["weights", "reset", "generate", "generate"]


def test_completions_that_the_policy_finds_unlikely_end_the_run(world: World, tmp_path: Path, engine: Engine) -> None:
    engine.log_prob = -0.01
    with pytest.raises(generation.DisagreementError, match="nats a token"):
        _trainer(world, tmp_path, world.records("video")[:4]).train()


def test_another_prompt_ends_the_run_and_names_the_record(
    world: World, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = _as_vllm
    monkeypatch.setitem(globals(), "_as_vllm", lambda *given: (shown(*given)[0][:-1], {}))
    records = world.records("video")[:4]
    with pytest.raises(requests.OtherPromptError) as raised:
        _trainer(world, tmp_path, records).train()
    assert any(str(raised.value).startswith(f"{record.source or record.id}: vLLM read a prompt of") for record in records)


def test_refills_and_uncorrected_ratios_are_refused(world: World, tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(ValueError, match="vllm_importance_sampling_correction is false"):
        _trainer(world, tmp_path, world.records("video")[:4], vllm_importance_sampling_correction=False)


def test_trls_start_of_the_engine_gets_a_whole_model_without_weights(
    world: World, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, Any] = {}

    def start(**given: Any) -> Engine:
        started.update(given, files={path.name for path in Path(given["model"]).iterdir()})
        return Engine(encoder, [])

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.setattr(vllm_generation, "LLM", start, raising=False)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    trainer = _trainer(world, tmp_path, world.records("video")[:4], adapter=LoraConfig(target_modules=r".*q_proj", r=2))
    assert started["load_format"] == "dummy"
    assert started["logprobs_mode"] == "processed_logprobs"
    assert {"config.json", "tokenizer.json"} <= started["files"]
    assert not any(name.endswith(".safetensors") for name in started["files"])
    assert vllm_generation.LLM is start
    assert policy.thinker_of(trainer.model).name_or_path == str(world.checkpoint)
    assert isinstance(trainer.vllm_generation.llm, generation.AskingWithMedia)


# What TRL's client sends.


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say({"data": [{"id": "omni"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append((self.path, body))  # type: ignore[attr-defined]
        content = [{"token": f"token_id:{i}", "logprob": -1.5, "top_logprobs": []} for i in (7, 8)]
        choices = [{"token_ids": [7, 8], "logprobs": {"content": content}} for _ in range(body["sampling_params"]["n"])]
        self._say({"choices": choices})

    def _say(self, what: Any) -> None:
        data = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as found:
        found.bodies = []  # type: ignore[attr-defined]
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield found
        found.shutdown()


def test_a_server_is_asked_by_trls_own_client(
    world: World, tmp_path: Path, encoder: Encoder, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Any) -> None:
        # TRL's own way goes on to NCCL, which needs a GPU.
        self.vllm_client = vllm_client.VLLMClient(base_url=self.server_base_url)
        self.vllm_client.image_features = generation.features_of

    monkeypatch.setattr(generation.OmniVLLMGeneration, "_init_vllm", start)
    monkeypatch.setattr(generation.OmniVLLMGeneration, "sync_weights", lambda self: None)
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    monkeypatch.setattr(generation, "encoded_by_vllm", lambda batch, merge: _encode(batch))
    url = f"http://127.0.0.1:{server.server_address[1]}"
    records = world.records("audio")[:4]
    trainer = trainer_for(
        world,
        records,
        tmp_path,
        vllm_settings=generation.Settings(mode="server", base_url=url),
        learning_rate=1e-9,
        max_completion_length=2,
    )
    with monkeypatch.context() as patch:
        patch.setattr(generation, "MOST_DIFFERENCE", 100.0)
        trainer.train()
    sent = server.bodies  # type: ignore[attr-defined]
    assert [path for path, _ in sent] == ["/inference/v1/generate"] * 2
    rows: dict[tuple[int, ...], Encoded] = {tuple(encoder(record).ids): encoder(record) for record in records}
    for _, body in sent:
        row = rows[tuple(body["token_ids"])]
        assert body["sampling_params"]["n"] == 2
        assert body["sampling_params"]["logit_bias"] == {str(i): -100.0 for i in policy.forbidden_tokens(encoder.processor)}
        tensors = torch.load(io.BytesIO(base64.b64decode(body["features"]["kwargs_data"]["audio"][0])))
        assert torch.equal(tensors["input_audio_features"], row.mels[0])


# What is installed.


def test_a_missing_or_unfit_vllm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "installed", lambda: None)
    with pytest.raises(InputError, match=r"vLLM is not installed: pip install 'omnistage\[vllm\]'"):
        requirements.check("stages.x.rollout.engine")
    monkeypatch.setattr(requirements, "installed", lambda: "0.31.0")
    with pytest.raises(InputError, match=r"vLLM is 0.31.0 and allowed is <0.31,>=0.27"):
        requirements.check("stages.x.rollout.engine")
    monkeypatch.setattr(requirements, "installed", lambda: "0.30.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        requirements.check("stages.x.rollout.engine")


def test_the_doctor_says_whether_vllm_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for version in (None, "0.26.0", "0.30.0"):
        monkeypatch.setattr(requirements, "installed", lambda version=version: version)
        (finding,) = doctor._vllm()
        found.append((finding.level, finding.mend))
    assert found == [("ok", None), ("note", requirements.INSTALL), ("ok", None)]


def test_a_run_is_refused_before_anything_is_loaded(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = "rewards: [{name: accuracy}], rollout: {engine: vllm}"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"run_dir: {tmp_path}/run\nmodel: {{path: {world.checkpoint}}}\nstages:\n  - {{name: x, kind: grpo, modality: video, steps: 1, "
        f"learning_rate: 1e-6, data: [{{path: {world.data}/train_audio_video.json, media_root: {world.data}}}], {rewards}}}\n"
    )
    recipe = recipes.load(path)
    monkeypatch.setattr(requirements, "installed", lambda: None)
    with pytest.raises(InputError, match=r"stages\.x\.rollout\.engine is 'vllm' and vLLM is not installed"):
        checks.check_settings(recipe)
    (stage,) = recipe.stages
    assert isinstance(stage, recipes.GrpoStage)
    with pytest.raises(InputError, match=r"train_audio_video\.json.*: the video is heard and stages\.x\.rollout\.engine is 'vllm'"):
        grpo.check_drawn(stage, world.records("audio_video"))
    grpo.check_drawn(stage, world.records("video"))


def test_our_versions_are_some_of_trls() -> None:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    extras = [Requirement(text) for text in metadata.requires("trl") or [] if "extra" in text]
    (trls,) = [one.specifier for one in extras if one.name == "vllm"]
    assert trls == SpecifierSet(">=0.22.0,<=0.31.0")
    assert all(trls.contains(version) for version in ("0.27.0", "0.30.9"))
