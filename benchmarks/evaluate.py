"""Items a second of an evaluation, beside the seeds' way, in one run on one CPU thread.

    python benchmarks/evaluate.py [--json FILE] [--clips 8] [--questions 1 4] [--rounds 3] [--tokens 480] [--answer 32]

Both ask the same tiny model the same questions about the same clips, from files to answers on disk, and draw the same tokens:

- `here`: what `omnistage evaluate` does: batches, media read and encoded once a clip and question, the prompt prefilled once, an
  append-only journal;
- `seeds`: what HumanSense's `eval.py` does: one item at a time, media read and encoded for it, and the whole file of answers
  written anew behind each (docs/evaluation.md). Its model runs the talker too; that is left out here.

Answers have a fixed length (no end token is drawn), so that nobody gains by saying less. CPU seconds; rounds take turns, and the ratio of
the medians is what counts. `--questions`: questions about each clip; the text differs, so each is a prompt of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from grpo_ways import SIZE, EachRow, write_media

from omnistage.data import synth
from omnistage.data.records import Record
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoder, MediaShape, left_padded
from omnistage.rl.towers import raw_media
from omnistage.stages.answering import local, plan
from omnistage.stages.answering.journal import Journal
from omnistage.stages.benchmarks import items

BATCH = 16


def here(checkpoint: Path, records: Sequence[Record], shape: MediaShape, out: Path, answer: int) -> list[str]:
    """Answers as `omnistage evaluate` draws them."""
    model, encoder = loaded(checkpoint, shape)
    local.keep_clips(encoder)
    answerer = Fixed(model, encoder, max_new_tokens=answer)
    local.ask(answerer, plan.batches(records, plan.ways(0, []), BATCH, 0), Journal(out), [record.id for record in records])
    found = items.read_predictions(out, records)[items.GREEDY]
    return [str(found[record.id].raw) for record in records]


def seeds(checkpoint: Path, records: Sequence[Record], shape: MediaShape, out: Path, answer: int) -> list[str]:
    """Answers one at a time; nothing is kept from one item for the next."""
    model, encoder = loaded(checkpoint, shape)
    encoder.cache_bytes = 0
    tokenizer, texts, written = encoder.processor.tokenizer, [], []
    EachRow(model)
    for record in records:
        row = encoder(record)
        ids, mask, _ = left_padded([row], tokenizer.pad_token_id)
        media = raw_media([row], model.device) | {"video_second_per_grid": row.second_per_grid}
        with torch.no_grad():
            drawn = model.generate(
                input_ids=ids,
                attention_mask=mask,
                use_audio_in_video=row.audio_in_video,
                **media,
                max_new_tokens=answer,
                min_new_tokens=answer,
                do_sample=False,
                suppress_tokens=policy.forbidden_tokens(encoder.processor),
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=policy.end_tokens(model, encoder.processor),
            )
        texts.append(tokenizer.decode(drawn[0, ids.shape[1] :], skip_special_tokens=True))
        written.append({"video_path": record.media[0].path, "questions": {"question": record.question, "model": texts[-1]}})
        out.mkdir(exist_ok=True)
        (out / "answers.json").write_text(json.dumps(written, indent=2))
    return texts


class Fixed(local.Answerer):
    """Answers of exactly the longest length."""

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"min_new_tokens": self.max_new_tokens}


def loaded(checkpoint: Path, shape: MediaShape) -> tuple[Any, Encoder]:
    model = policy.load(str(checkpoint), dtype="float32")
    policy.freeze(model, ["vision", "audio", "language"])
    model.eval()
    return model, Encoder(policy.load_processor(str(checkpoint)), model.config, shape=shape, template="short")


def questions(folder: Path, clips: int, of_each: int, tokens: int) -> tuple[list[Record], MediaShape]:
    """Records with several questions about each clip, clip by clip."""
    asked, shape = [], MediaShape()
    for at in range(clips):
        (folder / str(at)).mkdir()
        [record, *_], shape = write_media(folder / str(at), "audio_video", tokens)
        asked += [replace(record, id=f"{at}-{number}", question=f"how many are there ? {number}") for number in range(of_each)]
    return asked, shape


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--clips", type=int, default=16, help="clips with picture and sound (16)")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4], help="questions about each clip (1 4)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (3)")
    parser.add_argument("--tokens", type=int, default=480, help="media tokens of a clip (480)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer (32)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    result: dict[str, Any] = {"media_tokens": arguments.tokens, "answer_tokens": arguments.answer, "by_questions": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.build(folder / "checkpoint", synth.corpus(), size=SIZE, seed=0)
        for of_each in arguments.questions:
            (folder / f"clips-{of_each}").mkdir()
            records, shape = questions(folder / f"clips-{of_each}", arguments.clips, of_each, arguments.tokens)
            seconds: dict[str, list[float]] = {"here": [], "seeds": []}
            for turn in range(arguments.rounds):
                said = {}
                for which, way in (("here", here), ("seeds", seeds)):
                    start = time.process_time()
                    said[which] = way(folder / "checkpoint", records, shape, folder / f"{which}-{of_each}-{turn}", arguments.answer)
                    seconds[which].append(time.process_time() - start)
                alike = sum(a == b for a, b in zip(said["here"], said["seeds"], strict=True))
            rates = {which: len(records) / statistics.median(taken) for which, taken in seconds.items()}
            found = {"items": len(records), "same_answers": alike, "seconds": seconds, "items_per_s": rates}
            result["by_questions"][of_each] = found | {"ratio": rates["here"] / rates["seeds"]}
            print(f"{of_each} question(s) a clip, {len(records)} items, {alike} answers the same")
            for which, rate in rates.items():
                print(f"  {which:6} {rate:7.2f} items/s   rounds {', '.join(f'{taken:.2f} s' for taken in seconds[which])}")
            print(f"  ratio  {rates['here'] / rates['seeds']:7.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
