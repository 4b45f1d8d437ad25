"""Samples a second of a head stage, beside LMME3DHF's way, in one run on one CPU thread.

    python benchmarks/heads.py [--json FILE] [--clips 8] [--rounds 3] [--tokens 240]

Both train adapters and a head for two dimensions (quality, authenticity) of the same clips, with the same tiny model of the real
architecture and frozen towers, and see every sample once a round:

- `here`: one run over both dimensions, batches of 8; no logits are made;
- `seeds`: a run for each dimension, batches of one; logits and cross-entropy of all tokens are made and thrown away, as the released
  trainer does; the head reads the third token from the end.

Rounds take turns. CPU seconds; the ratio of the medians is what counts. A round is one pass and begins with nothing encoded, so that towers
run once a sample in both: what keeping their features saves in later passes is not in the ratio. Reading and processing of files, which
both need, is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from grpo_ways import SIZE, EachRow, write_media
from peft import LoraConfig
from torch import Tensor
from trl import SFTConfig

from omnistage.data import synth
from omnistage.data.records import AnswerKind, Record
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoder, MediaShape
from omnistage.rl.head_trainer import HeadTrainer
from omnistage.rl.heads.spec import HeadSpec
from omnistage.rl.sampler import Pool

DIMENSIONS = ("quality", "authenticity")
SPEC = HeadSpec.model_validate(
    {"name": "mos", "codec": {"kind": "affine", "low": 0.0, "high": 100.0}, "body": {"sizes": [64, 16]}, "losses": [{"name": "l1"}]}
)


class Seeds(HeadTrainer):
    """LMME3DHF's step: the whole forward with its logits, whose loss is not used, and a head on the third token from the end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._omni_towers = EachRow(self.model)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        targets = inputs.pop("head_targets")
        inputs.pop("head_reads")
        # One row: labels are its own ids.
        inputs["labels"] = inputs["input_ids"].clone()
        made = model(**inputs, output_hidden_states=True)
        scores: Tensor = self.head(made.hidden_states[-1][:, -3])
        loss = (scores - targets).abs().mean()
        return (loss, made) if return_outputs else loss


def samples(folder: Path, clips: int, tokens: int) -> tuple[dict[str, list[Record]], MediaShape]:
    """Both dimensions' records of clips that were really encoded."""
    made: dict[str, list[Record]] = {name: [] for name in DIMENSIONS}
    shape: MediaShape | None = None
    for at in range(clips):
        (folder / str(at)).mkdir()
        [record, *_], shape = write_media(folder / str(at), "video", tokens)
        for name in DIMENSIONS:
            question = f"how many are there ? {name}"
            made[name].append(
                replace(record, id=f"{at}-{name}", question=question, kind=AnswerKind.SCALAR, target="50", values=(50.0 + at,), task=name)
            )
    if shape is None:
        raise ValueError("no clips")
    return made, shape


def trainer_of(kind: type[HeadTrainer], checkpoint: Path, records: list[Record], shape: MediaShape, batch: int, out: Path) -> HeadTrainer:
    model = policy.load(str(checkpoint), dtype="float32")
    policy.freeze(model, ("vision", "audio"))
    args = SFTConfig(
        str(out),
        per_device_train_batch_size=batch,
        max_steps=-(-len(records) // batch),
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    encoder = Encoder(policy.load_processor(str(checkpoint)), model.config, shape=shape, template="short")
    for record in records:
        encoder(record)
    adapter = LoraConfig(r=8, lora_alpha=32, target_modules=r".*language_model.*\.(q|k|v|o)_proj", task_type="CAUSAL_LM")
    pools = [Pool(tuple(range(len(records))), 1.0)]
    return kind(model, SPEC, args=args, records=records, pools=pools, encoder=encoder, peft_config=adapter)


def timed(trainers: list[HeadTrainer]) -> float:
    start = time.process_time()
    for trainer in trainers:
        trainer.train()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--clips", type=int, default=8, help="clips, each with two scores (8)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (3)")
    parser.add_argument("--tokens", type=int, default=240, help="video tokens of a clip (240)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.build(folder / "checkpoint", synth.corpus(), size=SIZE, seed=0)
        made, shape = samples(folder, arguments.clips, arguments.tokens)
        both = [record for records in made.values() for record in records]
        seconds: dict[str, list[float]] = {"here": [], "seeds": []}
        for turn in range(arguments.rounds + 1):
            # New trainers each time: features of frozen towers stay with their encoder.
            here = [trainer_of(HeadTrainer, folder / "checkpoint", both, shape, 8, folder / "out")]
            seeds = [trainer_of(Seeds, folder / "checkpoint", records, shape, 1, folder / "out") for records in made.values()]
            for which, trainers in (("here", here), ("seeds", seeds)):
                took = timed(trainers)
                if turn:
                    seconds[which].append(took)
    rates = {which: len(both) / statistics.median(taken) for which, taken in seconds.items()}
    result: dict[str, Any] = {"samples": len(both), "video_tokens": arguments.tokens, "seconds": seconds, "samples_per_s": rates}
    result["ratio"] = rates["here"] / rates["seeds"]
    for which, rate in rates.items():
        print(f"{which:6} {rate:7.2f} samples/s   rounds {', '.join(f'{taken:.2f} s' for taken in seconds[which])}")
    print(f"ratio  {result['ratio']:7.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
