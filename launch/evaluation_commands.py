"""`omnistage evaluate`, `score` and `compare`: a model's figures on a benchmark, from its saved answers again, and beside another's."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from omnistage.data.errors import InputError
from omnistage.data.records import Modality
from omnistage.launch.arguments import whole, whole_or_zero
from omnistage.launch.devices import use_one_device
from omnistage.stages.recipe.choices import Control, Prompt

if TYPE_CHECKING:
    from omnistage.rewards.judges.service import Service
    from omnistage.stages.benchmarks.scoring import Judge

LEDGER = "judge.sqlite"
# A clip and a long answer take a server longer than a judgement.
ENDPOINT_TIMEOUT_S = 600.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    evaluate = commands.add_parser(
        "evaluate",
        help="score a checkpoint on a benchmark, or on files of your own",
        description="Asks a model every question of a benchmark and scores the answers. The same command again goes on where it stopped.",
    )
    evaluate.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="folder or Hugging Face id of the model (or --endpoint)")
    evaluate.add_argument(
        "--benchmark", default="choice", metavar="B", help="choice (your own file), humansense, gen3dhf, pose, ... (choice)"
    )
    evaluate.add_argument("--endpoint", metavar="URL", help="in place of CHECKPOINT: an OpenAI-compatible server (vLLM, a hosted model)")
    evaluate.add_argument("--model", metavar="NAME", help="model that the endpoint's server knows")
    evaluate.add_argument("--key-env", metavar="VAR", help="environment variable that holds the endpoint's key")
    evaluate.add_argument(
        "--endpoint-media", choices=["frames", "files"], default="frames", help="send sampled frames and sound, or whole files (frames)"
    )
    evaluate.add_argument("--concurrency", type=whole, default=8, metavar="N", help="requests to the endpoint at once (8)")
    evaluate.add_argument("--again", action="store_true", help="ask the endpoint again for answers that it could not give the last time")
    evaluate.add_argument("--data", nargs="+", required=True, metavar="FILE", help="annotation files")
    evaluate.add_argument("--out", required=True, metavar="DIR", help="folder for items, predictions, scores and the card")
    evaluate.add_argument("--format", metavar="F", help="reader of the files (the benchmark's own)")
    evaluate.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to")
    evaluate.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")
    evaluate.add_argument("--limit", type=whole, metavar="N", help="only the first N records of each file")
    evaluate.add_argument("--quarantine", metavar="FILE", help="rows that are left out (data check --quarantine)")
    evaluate.add_argument(
        "--prompt", choices=get_args(Prompt), help="template of the question (as the checkpoint was trained, else the benchmark's)"
    )
    evaluate.add_argument("--ask", nargs="+", default=[], metavar="WAY", help="further ways to ask that the benchmark knows: asr, guided")
    evaluate.add_argument(
        "--controls", "--probes", nargs="+", choices=get_args(Control), default=[], help="ask again about blank, swapped or shuffled media"
    )
    evaluate.add_argument(
        "--samples", type=whole_or_zero, default=0, metavar="N", help="answers sampled of each item too: pass@k, maj@N (0)"
    )
    evaluate.add_argument("--head", metavar="NAME", help="head that is read where numbers or poses are asked for (the only one)")
    evaluate.add_argument("--batch-size", type=whole, default=64, metavar="N", help="prompts per forward pass (64)")
    evaluate.add_argument("--max-new-tokens", type=whole, default=1024, metavar="N", help="longest answer (1024)")
    evaluate.add_argument("--processes", type=whole, default=1, metavar="N", help="processes on this machine, one per accelerator (1)")
    evaluate.add_argument("--seed", type=whole_or_zero, default=0, metavar="N", help="seed of samples and of the controls' swaps (0)")
    _add_scoring(evaluate)
    evaluate.set_defaults(command=_evaluate)

    score = commands.add_parser("score", help="score saved predictions again, without the model")
    score.add_argument("out", metavar="DIR", help="folder of an evaluation: setup.json, items.jsonl, predictions.jsonl")
    _add_scoring(score)
    score.set_defaults(command=_score)

    compare = commands.add_parser("compare", help="the paired difference of two evaluations of the same items")
    compare.add_argument("before", metavar="DIR_A", help="folder of an evaluation")
    compare.add_argument("after", metavar="DIR_B", help="folder of another one")
    compare.add_argument("--run", default="greedy", metavar="RUN", help="which answers: greedy, sample-0, maj@4, blank ... (greedy)")
    compare.add_argument("--json", action="store_true", help="print the differences as JSON")
    compare.set_defaults(command=_compare)


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--compat", choices=["upstream"], help="the published scorer's own rule too, faults included")
    command.add_argument("--judge", metavar="URL", help="OpenAI-compatible server that marks open answers (ends before /chat/completions)")
    command.add_argument("--judge-model", metavar="NAME", help="model that the judge's server knows")
    command.add_argument("--judge-key-env", metavar="VAR", help="environment variable that holds the key")
    command.add_argument("--judge-repeats", type=whole, metavar="N", help="marks of each answer, whose mean counts (1)")
    command.add_argument("--judge-ledger", metavar="FILE", help=f"file of all calls, so that none is paid for twice (DIR/{LEDGER})")
    command.add_argument("--embedding", metavar="FILE.py:FUNCTION", help="benchmark pose: embeds texts and poses, for retrieval recall")
    command.add_argument("--json", action="store_true", help="print the scores as JSON")


def _check_judge(arguments: argparse.Namespace) -> None:
    """Raises `InputError` for options of a judge that is not there, or is not named."""
    if arguments.judge is None:
        for name in ("judge_model", "judge_key_env", "judge_ledger", "judge_repeats"):
            if getattr(arguments, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} goes with --judge")
    elif arguments.judge_model is None:
        raise InputError("--judge needs --judge-model")


def _judge(arguments: argparse.Namespace, out: Path) -> Judge | None:
    if arguments.judge is None:
        return None
    from omnistage.rewards.judges.chat import Chat, Service
    from omnistage.rewards.judges.ledger import Ledger
    from omnistage.stages.benchmarks.scoring import Judge

    service = Service(url=arguments.judge, model=arguments.judge_model, key_env=arguments.judge_key_env)
    return Judge(Chat(service, Ledger(str(arguments.judge_ledger or out / LEDGER))), arguments.judge_repeats or 1)


def _evaluate(arguments: argparse.Namespace) -> int:
    _check_who(arguments)
    _check_judge(arguments)
    if arguments.processes > 1 and "RANK" not in os.environ:
        from omnistage.launch import processes

        return processes.start_command(arguments.processes)
    from omnistage.stages.benchmarks import registry, scoring
    from omnistage.stages.recipe import loading as recipes

    benchmark = registry.of(arguments.benchmark)
    scoring.check(benchmark, judge=arguments.judge is not None, upstream=arguments.compat is not None, embedding=arguments.embedding)
    shared = {name: getattr(arguments, name) for name in ("media_root", "modality", "limit", "quarantine")}
    shared["format"] = arguments.format or benchmark.formats[0]
    settings = {
        name: getattr(arguments, name) for name in ("benchmark", "ask", "controls", "samples", "head", "batch_size", "max_new_tokens")
    }
    data = [{"path": path, **shared} for path in arguments.data]
    evaluation = recipes.build(recipes.Evaluation, {"data": data, **settings}, "evaluate")
    for source in evaluation.data:
        if not Path(source.path).exists():
            raise InputError(f"--data {source.path}: no such file")
    out = Path(arguments.out)
    if "RANK" not in os.environ:
        use_one_device()
    from omnistage.stages import files
    from omnistage.stages.measure import evaluate

    files.make_folder(out, "--out")
    how: dict[str, Any] = {
        "out": out,
        "evaluation": evaluation,
        "prompt": arguments.prompt,
        "seed": arguments.seed,
        "judge": _judge(arguments, out),
        "upstream": arguments.compat is not None,
        "embedding": arguments.embedding,
    }
    if arguments.endpoint is None:
        found = evaluate.evaluate_checkpoint(arguments.checkpoint, **how)
    else:
        found = evaluate.evaluate_endpoint(_service(arguments), media=arguments.endpoint_media, again=arguments.again, **how)
    if os.environ.get("RANK", "0") == "0":
        _told(arguments, out, found)
    return 0


def _check_who(arguments: argparse.Namespace) -> None:
    """Raises `InputError` unless either a checkpoint or a server is asked."""
    if (arguments.checkpoint is None) == (arguments.endpoint is None):
        what = "neither is" if arguments.checkpoint is None else "both are"
        raise InputError(f"give either CHECKPOINT (a folder or a Hugging Face id) or --endpoint; {what} given")
    for name in ("model", "key_env"):
        if arguments.endpoint is None and getattr(arguments, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with --endpoint")
    if arguments.endpoint is not None and arguments.model is None:
        raise InputError("--endpoint needs --model")
    if arguments.endpoint is not None and (arguments.processes > 1 or arguments.head is not None):
        raise InputError("--processes and --head are for a checkpoint; --concurrency says how many requests are under way at once")
    if arguments.again and arguments.endpoint is None:
        raise InputError("--again goes with --endpoint: what a checkpoint could not be asked, it cannot be asked the next time either")


def _service(arguments: argparse.Namespace) -> Service:
    from omnistage.rewards.judges.service import Service

    settings = {"max_tokens": arguments.max_new_tokens, "concurrency": arguments.concurrency, "timeout_s": ENDPOINT_TIMEOUT_S}
    return Service(url=arguments.endpoint, model=arguments.model, key_env=arguments.key_env, **settings)


def _score(arguments: argparse.Namespace) -> int:
    from omnistage.stages.benchmarks import scoring

    _check_judge(arguments)
    out = Path(arguments.out)
    found = scoring.score(out, judge=_judge(arguments, out), upstream=arguments.compat is not None, embedding=arguments.embedding)
    _told(arguments, out, found)
    return 0


def _told(arguments: argparse.Namespace, out: Path, found: dict[str, Any]) -> None:
    from omnistage.stages.benchmarks import card

    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    lines = [*card.text_table(found), *(f"  note: {note}" for note in found["notes"])]
    if "upstream" in found:
        lines.append(f"  upstream: {json.dumps(found['upstream'][card.main_run(found)], ensure_ascii=False)}")
    print("\n".join([f"{found['benchmark']}: {found['items']} items", *lines, "", f"items, predictions, scores and card: {out}"]))


def _compare(arguments: argparse.Namespace) -> int:
    from omnistage.stages.benchmarks import compare, registry, setup

    before, after = Path(arguments.before), Path(arguments.after)
    names = [setup.read(folder)["benchmark"] for folder in (before, after)]
    if names[0] != names[1]:
        raise InputError(f"{before} is of benchmark {names[0]!r} and {after} of {names[1]!r}; only one and the same can be compared")
    found = compare.compare(before, after, registry.of(names[0]).figures, run=arguments.run)
    print(json.dumps(found, indent=2, ensure_ascii=False) if arguments.json else compare.table(found))
    return 0
