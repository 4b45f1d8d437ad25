"""What reading clips ahead of their step gains, side by side in one run.

    python benchmarks/prefetch.py [--json FILE] [--rounds 5] [--clips 32] [--steps 3] [--prompts 4] [--group 8] [--completion 64]

- reading: the clips decoded and processed by the caller, by 1 and 2 threads beside it, and by 1 and 2 processes that stand ready (their
  tensors come back through shared memory). The ways are called in turn, each round on every clip.
- steps: GRPO steps of a tiny model of the real architecture with `media.workers` 0, 1 and 2. The runs take turns; each first step,
  which nothing is read ahead of, is left out.

Clips are 640 x 360 at 25 frames a second, 8 s long, H.264 with noise; 16 frames are read. One torch thread. Wall-clock seconds mean little
on a machine that does something else meanwhile, so that figures are medians of those samples in which other processes used less than
`QUIET` cores; the number of samples stands beside them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch
from transformers import PrinterCallback, Qwen2_5OmniThinkerConfig, TrainerCallback
from trl import GRPOConfig

from omnistage.data import synth
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoded, Encoder, MediaShape
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool

RATE, SECONDS, WIDTH, HEIGHT = 25, 8, 640, 360
FILES = 8
SHAPE = MediaShape(MediaLimits(fps=2.0, max_frames=16))
SIZE = tiny.TinySize(hidden=256, layers=4, heads=8, kv_heads=2, tower_hidden=64, tower_layers=2)
WORKERS = (0, 1, 2)
QUIET = 0.25


@dataclass(frozen=True)
class Sample:
    """Seconds of something, cores that other processes used meanwhile, and seconds for which it waited for clips."""

    seconds: float
    others: float
    waited: float = 0.0


class Clock:
    """Started as it is made."""

    def __init__(self) -> None:
        self.own = psutil.Process()
        self.began, self.used = time.perf_counter(), self._others()

    def _others(self) -> float:
        """CPU seconds of the machine that are not those of this process and its children."""
        whole = psutil.cpu_times()
        own = [process.cpu_times() for process in (self.own, *self.own.children())]
        return sum(whole) - whole.idle - whole.iowait - sum(times.user + times.system for times in own)

    def sample(self) -> Sample:
        seconds = time.perf_counter() - self.began
        return Sample(seconds, (self._others() - self.used) / seconds)


def write_clip(path: Path, seed: int) -> None:
    """Coarse blocks that move over a ramp, with noise."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 200, (9, 16, 3), dtype=np.uint8), np.ones((40, 40, 1), np.uint8))
    noise = rng.integers(0, 24, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(RATE * SECONDS):
            image = np.roll(blocks, (index, 3 * index), (0, 1)) + noise[index % len(noise)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def records_of(folder: Path, count: int) -> list[Record]:
    """Distinct questions about `FILES` clips."""
    for seed in range(min(FILES, count)):
        write_clip(folder / f"{seed}.mp4", seed)
    refs = [(MediaRef("video", str(folder / f"{seed % FILES}.mp4")),) for seed in range(count)]
    ask = "how many are there in {} ?"
    return [Record(str(at), Modality.VIDEO, "benchmark", AnswerKind.NUMBER, ask.format(at), "3", ref) for at, ref in enumerate(refs)]


def encoder_of(model: str, workers: int = 0) -> Encoder:
    torch.set_num_threads(1)
    config = Qwen2_5OmniThinkerConfig.from_pretrained(model)
    return Encoder(policy.load_processor(model), config, shape=SHAPE, template="short", workers=workers)


class Remote:
    """What a process of a pool does."""

    encoder: Encoder

    @classmethod
    def begin(cls, model: str) -> None:
        warnings.filterwarnings("ignore")
        cls.encoder = encoder_of(model)

    @classmethod
    def read(cls, record: Record) -> Encoded:
        return cls.encoder.encode(record)

    @staticmethod
    def there(_: int) -> None:
        time.sleep(0.5)


def timed(work: Callable[[], object]) -> Sample:
    clock = Clock()
    work()
    return clock.sample()


class EachStep(TrainerCallback):  # type: ignore[misc]
    """Times each step, from its rollout to its weights."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.clock = Clock()

    def on_step_begin(self, *given: Any, **named: Any) -> None:
        self.clock = Clock()

    def on_step_end(self, *given: Any, **named: Any) -> None:
        self.samples.append(self.clock.sample())


def reading(model: str, records: Sequence[Record], rounds: int) -> dict[str, Any]:
    """Seconds of each way over all records, and of starting the processes."""
    encoder = encoder_of(model)
    spawn = multiprocessing.get_context("spawn")
    pools: dict[int, Any] = {count: ProcessPoolExecutor(count, spawn, Remote.begin, (model,)) for count in (1, 2)}
    found: dict[str, Any] = {"start": {count: timed(lambda p=pool: list(p.map(Remote.there, range(4)))) for count, pool in pools.items()}}
    threads = {count: ThreadPoolExecutor(count) for count in (1, 2)}
    ways: dict[str, Callable[[], object]] = {"caller": lambda: [encoder.encode(record) for record in records]}
    ways |= {f"threads {n}": lambda p=pool: list(p.map(encoder.encode, records)) for n, pool in threads.items()}
    ways |= {f"processes {n}": lambda p=pool: list(p.map(Remote.read, records)) for n, pool in pools.items()}
    for pool in threads.values():
        list(pool.map(encoder.encode, records[:2]))
    found["ways"] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found["ways"][name].append(timed(way))
    for pool in (*pools.values(), *threads.values()):
        pool.shutdown()
    return found


def steps(model: str, records: list[Record], given: argparse.Namespace, workers: int, out: Path) -> list[Sample]:
    """Each step but the first."""
    each = EachStep()
    args = GRPOConfig(
        str(out),
        per_device_train_batch_size=given.prompts * given.group,
        num_generations=given.group,
        max_completion_length=given.completion,
        max_steps=given.steps + 1,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    thinker = policy.load(model, dtype="float32")
    policy.freeze(thinker, ("vision", "audio"))
    trainer = OmniGRPOTrainer(
        thinker,
        [lambda completion_ids, **columns: [float(ids[0] % 2) for ids in completion_ids]],
        args=args,
        records=records,
        pools=[Pool(tuple(range(len(records))), 1.0)],
        encoder=encoder_of(model, workers),
        callbacks=[each],
    )
    trainer.remove_callback(PrinterCallback)
    # Completions of the same length, whatever is drawn.
    trainer.generation_config.suppress_tokens = [*trainer.generation_config.suppress_tokens, *trainer.eos_token_ids]
    trainer.train()
    waits = [row["media/wait_s"] for row in trainer.state.log_history if "media/wait_s" in row]
    return [replace(sample, waited=wait) for sample, wait in zip(each.samples, waits, strict=True)][1:]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(folder / "model")
        tiny.build(folder / "model", synth.corpus(), size=SIZE, seed=0)
        records = records_of(folder, max(given.clips, given.prompts * (given.steps + 1)))
        row = encoder_of(model)(records[0])
        found: dict[str, Any] = {"prompt_tokens": len(row.ids), "prompt_mb": row.size / 1e6}
        found["reading"] = reading(model, records[: given.clips], given.rounds)
        found["steps"] = {workers: [] for workers in WORKERS}
        for at in range(given.rounds):
            for workers in WORKERS:
                found["steps"][workers] += steps(model, records, given, workers, folder / f"{at}-{workers}")
    return found


def median(samples: Sequence[Sample]) -> tuple[float, float, int]:
    """Of the quiet samples, or of all where there are none: median seconds, median wait, and how many they are."""
    kept = [sample for sample in samples if sample.others < QUIET] or list(samples)
    return statistics.median(s.seconds for s in kept), statistics.median(s.waited for s in kept), len(kept)


def shown(found: dict[str, Any], clips: int) -> str:
    """For people: a line a way."""
    lines = [f"prompt of {found['prompt_tokens']} tokens, {found['prompt_mb']:.0f} MB; reading {clips} clips:"]
    plain = median(found["reading"]["ways"]["caller"])[0]
    for name, samples in found["reading"]["ways"].items():
        seconds, _, count = median(samples)
        lines.append(f"  {name:14}{seconds:7.2f} s   {plain / seconds:.2f}x   of {count} samples")
    lines.append("  processes stand ready after " + ", ".join(f"{s.seconds:.0f} s ({n})" for n, s in found["reading"]["start"].items()))
    lines.append("a GRPO step, and what of it is waiting for clips:")
    plain = median(found["steps"][0])[0]
    for workers, samples in found["steps"].items():
        seconds, waited, count = median(samples)
        lines.append(f"  workers {workers}     {seconds:7.2f} s {waited:6.2f} s   {plain / seconds:.2f}x   of {count} samples")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--clips", type=int, default=32, help="clips that are read (32)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a run (3)")
    parser.add_argument("--prompts", type=int, default=4, help="prompts of a step (4)")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt (8)")
    parser.add_argument("--completion", type=int, default=64, help="tokens of a completion (64)")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found = measure(given)
    print(shown(found, given.clips))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=2, default=asdict) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
