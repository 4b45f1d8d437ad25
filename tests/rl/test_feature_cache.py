"""Features on disk are those that a tower makes, bit for bit, to several processes, within their bound, whatever is damaged or changed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trl import SFTConfig

from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef, Record
from omnistage.rl import feature_cache, policy
from omnistage.rl.encoding import Encoded, Encoder, MediaShape
from omnistage.rl.feature_cache import FeatureCache, key_of
from omnistage.rl.sampler import Pool
from omnistage.rl.sft_trainer import OmniSFTTrainer
from omnistage.rl.towers import Origin, Towers
from trainers import trainer_for
from world import SHAPE, World

GB = 10**9
CPU = torch.device("cpu")
BOTH: tuple[policy.Part, ...] = ("vision", "audio")


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "entries").rglob("*") if path.is_file())


def frozen_towers(world: World, cache: FeatureCache | None) -> Towers:
    """Of a model that was loaded anew."""
    model = world.model()
    policy.freeze(model, BOTH)
    return Towers(model, cache)


def encoded(world: World, record: Record, shape: MediaShape = SHAPE) -> Encoded:
    """The record read and processed anew, without any features."""
    model = world.model()
    return Encoder(policy.load_processor(str(world.checkpoint)), model.config, shape=shape, template="short").encode(record)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def picture(world: World) -> Record:
    return next(record for record in world.mixed() if record.id == "image")


def test_features_from_disk_are_those_of_the_tower(world: World, tmp_path: Path) -> None:
    """A picture, a clip with its sound, and a sound; four entries, each found by a model that was loaded anew."""
    records = [picture(world), world.records("audio_video")[0], world.records("audio")[0]]
    plain, first, second = ([encoded(world, record) for record in records] for _ in range(3))
    frozen_towers(world, None).media(plain, CPU)
    filling = frozen_towers(world, FeatureCache(tmp_path, GB))
    filling.media(first, CPU)
    finding = frozen_towers(world, FeatureCache(tmp_path, GB))
    finding.media(second, CPU)
    finding.media(second, CPU)
    assert (dict(filling.origins), dict(finding.origins)) == ({"encoded": 4}, {"disk": 4, "memory": 4})
    assert len(entries(tmp_path)) == 4
    for kept, made, found in zip(plain, first, second, strict=True):
        assert same(kept.features, made.features)
        assert same(kept.features, found.features)


CHILD = """
import sys
from pathlib import Path
import torch
from omnistage.rl import policy
from omnistage.rl.feature_cache import FeatureCache
from omnistage.rl.towers import Towers
from safetensors.torch import save_file
from world import World
data, checkpoint, folder, seconds, out = sys.argv[1:]
world = World(Path(data), Path(checkpoint))
model = world.model()
policy.freeze(model, ["vision", "audio"])
towers = Towers(model, FeatureCache(folder, 10**9))
rows = [world.encoder(model)(record) for record in world.records("audio_video")[:2]]
real = model.model.get_video_features

def slow(*given, **named):
    import time
    time.sleep(float(seconds))
    return real(*given, **named)

model.model.get_video_features = slow
print("ready", flush=True)
sys.stdin.readline()
towers.media(rows, torch.device("cpu"))
save_file({f"{at}/{name}": value for at, row in enumerate(rows) for name, value in row.features.items()}, out)
print(towers.origins["encoded"], towers.origins["disk"], flush=True)
"""


def test_two_processes_at_once_run_each_tower_once(world: World, tmp_path: Path) -> None:
    """Each clip's frames take a second; a process that comes second waits, and both hold what this one makes without a cache."""
    running = []
    for name in ("a", "b"):
        given = [str(world.data), str(world.checkpoint), str(tmp_path / "cache"), "1.0", str(tmp_path / name)]
        running.append(started([sys.executable, "-c", CHILD, *given]))
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    counts = [tuple(map(int, out.split())) for out, _ in outputs]
    assert [sum(one) for one in zip(*counts, strict=True)] == [4, 4]
    rows = [encoded(world, record) for record in world.records("audio_video")[:2]]
    frozen_towers(world, None).media(rows, CPU)
    plain = {f"{at}/{name}": value for at, row in enumerate(rows) for name, value in row.features.items()}
    assert same(load_file(tmp_path / "a"), plain)
    assert same(load_file(tmp_path / "b"), plain)
    assert not [path for path in (tmp_path / "cache" / "locks").rglob("*") if path.is_file()]


def started(command: list[str]) -> subprocess.Popen[str]:
    helpers, pipe = str(Path(__file__).parents[1] / "helpers"), subprocess.PIPE
    found = {"PYTHONPATH": os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | found)


def origins_after(world: World, folder: Path, row: Encoded, change: Callable[[Towers], None] = lambda towers: None) -> Counter[Origin]:
    """Where a fresh model's towers get the features of a row from."""
    model = world.model()
    policy.freeze(model, BOTH)
    towers = Towers(model, FeatureCache(folder, GB))
    change(towers)
    towers.media([row], CPU)
    return towers.origins


def test_changed_weight_misses(world: World, tmp_path: Path) -> None:
    """One weight of the vision tower: the frames are encoded again, the sound is found."""
    record = world.records("audio_video")[0]
    before, after = encoded(world, record), encoded(world, record)
    assert origins_after(world, tmp_path, before) == {"encoded": 2}
    model = world.model()
    policy.freeze(model, BOTH)
    with torch.no_grad():
        next(value for _, value in policy.parameters_of(model, "vision")).view(-1)[0] += 0.5
    towers = Towers(model, FeatureCache(tmp_path, GB))
    towers.media([after], CPU)
    assert towers.origins == {"encoded": 1, "disk": 1}
    video = [next(value for name, value in row.features.items() if name.startswith("video")) for row in (before, after)]
    assert not torch.equal(*video)


@pytest.mark.parametrize("change", ["another clip", "other limits", "other pixels", "frames in another order", "blank"])
def test_other_frames_and_other_settings_miss(world: World, tmp_path: Path, change: str) -> None:
    records = world.records("video")
    (ref,) = records[0].media
    plain = encoded(world, records[0])
    assert origins_after(world, tmp_path, plain) == {"encoded": 1}
    assert origins_after(world, tmp_path, encoded(world, replace(records[0], question="what is it ?"))) == {"disk": 1}
    other = {
        "another clip": lambda: encoded(world, records[1]),
        "other limits": lambda: encoded(world, records[0], replace(SHAPE, limits=MediaLimits(fps=1.0, max_frames=2))),
        "other pixels": lambda: encoded(world, records[0], replace(SHAPE, max_pixels=28 * 28)),
        "frames in another order": lambda: encoded(world, records[0].with_media((replace(ref, shuffle=7),))),
        "blank": lambda: encoded(world, records[0].with_media((MediaRef("video", ref.path, blank=frozenset({"picture"})),))),
    }[change]()
    assert origins_after(world, tmp_path, other) == {"encoded": 1}


def test_what_computes_the_features_is_part_of_their_key(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another setting of a tower that is no weight, another kernel, another type, other versions."""

    def more_windows(towers: Towers) -> None:
        towers.thinker.model.visual.config.window_size *= 2

    def eager(towers: Towers) -> None:
        towers.thinker.model.visual.set_attn_implementation("eager")

    def half(towers: Towers) -> None:
        towers.thinker.model.visual.to(torch.bfloat16)

    def versions(towers: Towers) -> None:
        monkeypatch.setattr(torch, "__version__", "0.0")

    record = world.records("video")[0]
    assert origins_after(world, tmp_path, encoded(world, record)) == {"encoded": 1}
    assert origins_after(world, tmp_path, encoded(world, record)) == {"disk": 1}
    for change in (more_windows, eager, half, versions):
        assert origins_after(world, tmp_path, encoded(world, record), change) == {"encoded": 1}, change.__name__


def test_a_half_towers_features_are_its_own_whichever_pass_asks(world: World, tmp_path: Path) -> None:
    """Under autocast and without: the same bits in the tower's type."""
    record = world.records("audio_video")[0]
    model = policy.load(str(world.checkpoint), dtype="bfloat16")
    policy.freeze(model, BOTH)
    under, without, found = (encoded(world, record) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        Towers(model, FeatureCache(tmp_path, GB)).media([under], CPU)
    Towers(model).media([without], CPU)
    towers = Towers(model, FeatureCache(tmp_path, GB))
    towers.media([found], CPU)
    assert towers.origins == {"disk": 2}
    assert {features.dtype for features in found.features.values()} == {torch.bfloat16}
    assert same(found.features, without.features)
    assert same(found.features, under.features)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def reshaped(path: Path) -> None:
    """The same values under another shape."""
    content = path.read_bytes()
    assert content.count(b"[6,8]") == 1
    path.write_bytes(content.replace(b"[6,8]", b"[8,6]"))


def foreign(path: Path) -> None:
    save_file({"features": torch.zeros(6, 8)}, path)


def without_features(path: Path) -> None:
    save_file({"weights": torch.zeros(6, 8)}, path, metadata={feature_cache.FORMAT: "1"})


def of_another_key(path: Path) -> None:
    other = FeatureCache(path.parents[2] / "other", GB)
    other.put("b" * 64, torch.ones(6, 8))
    path.write_bytes(entries(path.parents[2] / "other")[0].read_bytes())


@pytest.mark.parametrize("damage", [flipped, cut, emptied, reshaped, foreign, without_features, of_another_key])
def test_damaged_or_foreign_entry_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    key, features = "a" * 64, torch.arange(48.0).view(6, 8)
    cache = FeatureCache(tmp_path / "cache", GB)
    assert cache.get_or_make(key, lambda: features) == (features, False)
    (entry,) = entries(tmp_path / "cache")
    whole = entry.read_bytes()
    damage(entry)
    assert cache.get(key) is None
    assert not entry.exists()
    found, was_there = cache.get_or_make(key, lambda: features.clone())
    assert (found.equal(features), was_there, entry.read_bytes()) == (True, False, whole)
    kept = cache.get(key)
    assert kept is not None
    assert kept.equal(features)


def test_the_bound_holds_and_the_oldest_use_goes_first(tmp_path: Path) -> None:
    """Four of nine equal entries fit; the first is used again and again."""
    features = [torch.full((100, 64), float(at)) for at in range(9)]
    keys = [key_of([one], "video", "tower") for one in features]
    FeatureCache(tmp_path / "one", GB).put(keys[0], features[0])
    size = entries(tmp_path / "one")[0].stat().st_size
    cache = FeatureCache(tmp_path / "cache", int(4.5 * size))
    for key, one in zip(keys, features, strict=True):
        cache.put(key, one)
        time.sleep(0.01)
        assert cache.get(keys[0]) is not None
        time.sleep(0.01)
        assert sum(path.stat().st_size for path in entries(tmp_path / "cache")) <= int(4.5 * size)
    held = [at for at, key in enumerate(keys) if cache.get(key) is not None]
    assert held[0] == 0
    assert held[1:] == list(range(10 - len(held), 9))
    assert len(held) >= 3
    FeatureCache(tmp_path / "small", 100).put(keys[0], features[0])
    assert entries(tmp_path / "small") == []


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file of this process grows beyond `most` bytes: writing fails as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    features = torch.ones(1000, 64)
    cache = FeatureCache(tmp_path, GB)
    with pytest.warns(UserWarning, match="feature cache .*: nothing more is kept") as said, full_disk(100_000):
        made = [cache.get_or_make(key, features.clone) for key in ("a" * 64, "b" * 64)]
    assert sum("feature cache" in str(one.message) for one in said) == 1
    assert all(one.equal(features) and not was_there for one, was_there in made)
    assert entries(tmp_path) == []
    cache.put("a" * 64, features)
    kept = cache.get("a" * 64)
    assert kept is not None
    assert kept.equal(features)


def test_folder_that_cannot_be_written_is_said_once(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    towers = frozen_towers(world, FeatureCache(tmp_path / "file", GB))
    with pytest.warns(UserWarning, match=r"feature cache .*file'.*: nothing more is kept") as said:
        towers.media([encoded(world, record) for record in world.records("audio_video")[:2]], CPU)
    assert sum("feature cache" in str(one.message) for one in said) == 1
    assert towers.origins == {"encoded": 4}
    with pytest.raises(InputError, match="feature cache: max_bytes must be positive, got 0"):
        FeatureCache(tmp_path / "cache", 0)


def logged(trainer: object) -> list[dict[str, float]]:
    return [row for row in trainer.state.log_history if "loss" in row]  # type: ignore[attr-defined]


def told(row: dict[str, float]) -> tuple[float, ...]:
    return tuple(row[f"features/{name}"] for name in ("encoded", "hits_memory", "hits_disk"))


def test_metrics_say_where_features_came_from(world: World, tmp_path: Path) -> None:
    """Two steps over two prompts with frames and sound: a rollout that reads each prompt once, and a reference and a policy pass over two
    completions of each; then the same in a trainer of its own."""
    records, cache = world.records("audio_video")[:2], FeatureCache(tmp_path / "cache", GB)
    rows = []
    for _ in range(2):
        trainer = trainer_for(world, records, tmp_path, frozen=BOTH, max_steps=2, beta=0.1, logging_steps=1, shared_prefix="off")
        trainer.encoder.feature_cache = cache
        trainer.train()
        rows.append(logged(trainer))
        held = sum(features.nbytes for record in records for features in trainer.encoder(record).features.values())
        assert {row["features/bytes"] for row in rows[-1]} == {held}
        # A log line without a step has nothing to tell.
        assert not [name for name in trainer.state.log_history[-1] if name.startswith("features/")]
    # Rollout: 2 prompts x 2 senses = 4; two passes over 2 prompts x 2 completions x 2 senses = 16.
    assert [told(row) for row in rows[0]] == [(4, 16, 0), (0, 20, 0)]
    assert [told(row) for row in rows[1]] == [(0, 16, 4), (0, 20, 0)]
    assert [row["features/hit_rate"] for row in rows[0]] == [0.8, 1.0]


def test_a_supervised_stage_fills_the_cache_for_an_evaluation_pass(world: World, tmp_path: Path) -> None:
    """Two demonstrations with frames and sound a step, two steps over both; then another model's towers find them."""
    records, cache, model = world.records("audio_video", "cold_start")[:2], FeatureCache(tmp_path / "cache", GB), world.model()
    policy.freeze(model, BOTH)
    encoder = world.encoder(model)
    encoder.feature_cache = cache
    settings = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "report_to": []}
    trainer = OmniSFTTrainer(
        model,
        args=SFTConfig(str(tmp_path / "out"), bf16=False, use_cpu=True, gradient_checkpointing=False, disable_tqdm=True, **settings),
        records=records,
        pools=[Pool((0, 1), 1.0)],
        encoder=encoder,
    )
    trainer.train()
    assert [told(row) for row in logged(trainer)] == [(4, 0, 0), (0, 4, 0)]
    towers = frozen_towers(world, cache)
    towers.media([encoded(world, record) for record in records], CPU)
    assert towers.origins == {"disk": 4}


def test_a_trained_tower_is_not_counted(world: World, tmp_path: Path) -> None:
    trainer = trainer_for(world, world.records("video")[:2], tmp_path, frozen=("audio",), logging_steps=1)
    trainer.encoder.feature_cache = FeatureCache(tmp_path / "cache", GB)
    trainer.train()
    assert not [name for name in logged(trainer)[0] if name.startswith("features/")]
    assert entries(tmp_path / "cache") == []


def test_a_later_stage_with_the_same_frozen_towers_encodes_nothing(world: World, tmp_path: Path) -> None:
    """Of a model that was trained, saved and loaded again; and it learns what it learns without a cache."""
    records = world.records("audio_video")[:2]
    first = trainer_for(world, records, tmp_path, frozen=BOTH, logging_steps=1)
    first.encoder.feature_cache = FeatureCache(tmp_path / "cache", GB)
    first.train()
    assert told(logged(first)[0])[0] == 4
    first.model.save_pretrained(tmp_path / "model")
    policy.load_processor(str(world.checkpoint)).save_pretrained(tmp_path / "model")
    after = World(world.data, tmp_path / "model")
    weights = []
    for cache in (FeatureCache(tmp_path / "cache", GB), None):
        second = trainer_for(after, records, tmp_path, frozen=BOTH, logging_steps=1)
        second.encoder.feature_cache = cache
        second.train()
        encoded_rows, _, from_disk = told(logged(second)[0])
        assert (encoded_rows, from_disk) == ((0, 4) if cache else (4, 0))
        weights.append({name: value.detach() for name, value in second.model.named_parameters()})
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
