"""`omnistage merge`, `predict` and `chat`: a checkpoint's adapters in one folder, its heads' values, and a conversation with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnistage.data.errors import InputError
from omnistage.data.records import LEVELS, AnswerKind, Modality
from omnistage.launch.arguments import whole
from omnistage.launch.devices import use_one_device

if TYPE_CHECKING:
    from omnistage.data.body.skeleton import Skeleton
    from omnistage.data.records import Record
    from omnistage.rl.heads.predict import Prediction


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    merge = commands.add_parser("merge", help="merge adapters and heads into one plain model folder")
    merge.add_argument("checkpoint", metavar="CHECKPOINT", help="folder with adapters: a LoRA stage's checkpoint")
    merge.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    merge.add_argument("--base", metavar="DIR", help="model under the adapters, in place of the one that they name")
    merge.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="type of the weights (float32)")
    merge.set_defaults(command=_merge)

    predict = commands.add_parser("predict", help="read a checkpoint's head: scores, levels or poses")
    predict.add_argument("checkpoint", metavar="CHECKPOINT", help="model folder that carries a head")
    what = predict.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", metavar="FILE", help="annotation files; their answers are not looked at")
    what.add_argument("--question", metavar="TEXT", help="one question")
    predict.add_argument("--media", nargs="+", default=[], metavar="PATH", help="files that the question is about")
    predict.add_argument("--format", default="humansense", metavar="F", help="reader of the files (humansense)")
    predict.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to")
    predict.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")
    predict.add_argument("--limit", type=whole, metavar="N", help="only the first N records of each file")
    predict.add_argument("--quarantine", metavar="FILE", help="rows that are left out (data check --quarantine)")
    predict.add_argument("--head", metavar="NAME", help="which head, where the checkpoint carries several")
    predict.add_argument(
        "--sentence", metavar="TEXT", help="no head: how probable each level is in an answer like 'The quality is {level}.'"
    )
    predict.add_argument("--levels", nargs="+", default=list(LEVELS), metavar="WORD", help="levels, the worst first (bad ... excellent)")
    predict.add_argument("--out", metavar="DIR", help="folder for predictions.jsonl and drawn poses (poses need it)")
    predict.add_argument("--body", metavar="FILE", help="your own SMPL or SMPL-X file, whose lengths give the places of joints (ours)")
    predict.add_argument("--dropout", type=whole, default=0, metavar="N", help="mean and interval of N passes with the head's dropout on")
    predict.add_argument("--batch-size", type=whole, default=16, metavar="N", help="prompts per forward pass (16)")
    predict.add_argument("--max-new-tokens", type=whole, default=64, metavar="N", help="longest answer of a head at a token (64)")
    predict.add_argument("--json", action="store_true", help="print one JSON object a record")
    predict.set_defaults(command=_predict)

    chat = commands.add_parser("chat", help="talk with a checkpoint in the terminal: text, media files, poses")
    chat.add_argument("checkpoint", metavar="CHECKPOINT", help="model folder")
    chat.add_argument("--out", default="poses", metavar="DIR", help="folder for the poses that it makes (poses)")
    chat.add_argument("--max-new-tokens", type=whole, default=256, metavar="N", help="longest answer (256)")
    chat.set_defaults(command=_chat)


def _merge(arguments: argparse.Namespace) -> int:
    use_one_device()
    from omnistage.rl import policy
    from omnistage.stages import merge

    policy.quiet_libraries()
    print(merge.told(merge.merge(arguments.checkpoint, Path(arguments.out), base=arguments.base, dtype=arguments.dtype)))
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.media and arguments.question is None:
        raise InputError("--media goes with --question; the records of --data name their own")
    if arguments.sentence and (arguments.head or arguments.dropout):
        raise InputError("--sentence reads the policy's words; --head and --dropout are for heads")
    if arguments.dropout == 1:
        raise InputError("--dropout is 1; an interval needs at least 2 passes")
    from omnistage.stages.recipe import loading as recipes

    shared = {name: getattr(arguments, name) for name in ("format", "media_root", "modality", "limit", "quarantine")}
    sources = [recipes.build(recipes.Source, {"path": path, **shared}, "predict") for path in arguments.data or []]
    for source in sources:
        if not Path(source.path).exists():
            raise InputError(f"--data {source.path}: no such file")
    use_one_device()
    from omnistage.rl import body
    from omnistage.rl.heads import carried, words
    from omnistage.stages import asking, files, predict, rows

    records = rows.read_sources(sources) if sources else []
    rows.check_media(records)
    asking.check(arguments.checkpoint)
    spec = None
    if not arguments.sentence:
        spec = carried.chosen(carried.described(arguments.checkpoint), arguments.head, arguments.checkpoint)
        predict.check(spec, arguments.dropout)
        if arguments.body is not None and spec.codec.kind != "rot6d":
            raise InputError(f"--body is for poses, and head {spec.name!r} puts out numbers")
        if spec.codec.kind == "rot6d" and arguments.out is None:
            raise InputError(f"head {spec.name!r} puts out poses; give a folder to write them to (--out)")
    if arguments.question is not None:
        refs = [asking.media_of(path) for path in arguments.media]
        records = [asking.record_of(arguments.question, refs, kind=asking.kind_for(spec) if spec else AnswerKind.LEVEL)]
    if arguments.out is not None:
        files.make_folder(Path(arguments.out), "--out")
    own = None if arguments.body is None else body.smpl_skeleton(Path(arguments.body))
    # All that can be wrong is said before weights are loaded.
    model, encoder = asking.load(arguments.checkpoint)
    if spec is None:
        return _told(arguments, records, list(words.WordReader(model, encoder, arguments.sentence, arguments.levels)(records)))
    found = list(
        predict.predictions(
            model,
            encoder,
            carried.heads_of(model)[spec.name],
            records,
            batch_size=arguments.batch_size,
            max_new_tokens=arguments.max_new_tokens,
            passes=arguments.dropout,
        )
    )
    return _told(arguments, records, found, own)


def _told(arguments: argparse.Namespace, records: Sequence[Record], found: Sequence[Prediction], body: Skeleton | None = None) -> int:
    """Writes and prints predictions."""
    from omnistage.stages import predict

    written = predict.write(Path(arguments.out), records, found, body) if arguments.out is not None else []
    for at, (record, prediction) in enumerate(zip(records, found, strict=True)):
        if arguments.json:
            row = written[at] if written else {"id": record.id, "answer": prediction.text, "values": prediction.values}
            print(json.dumps(row, ensure_ascii=False))
        else:
            print(predict.line(record, prediction))
    if arguments.out is not None and not arguments.json:
        print(f"\npredictions: {arguments.out}")
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    use_one_device()
    from omnistage.stages import asking, chat

    model, encoder = asking.load(arguments.checkpoint)
    under_way = chat.Chat(model, encoder, chat.token_head(model), Path(arguments.out), max_new_tokens=arguments.max_new_tokens)
    print(chat.HELP)
    chat.converse(under_way, _lines(), print)
    return 0


def _lines() -> Iterator[str]:
    """What is typed, line by line; a prompt is shown on a terminal only."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line
