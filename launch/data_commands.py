"""`omnistage data ...`: the commands about annotation files and their clips."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from omnistage.data.errors import InputError
from omnistage.data.records import Modality, Record
from omnistage.launch.arguments import positive
from omnistage.launch.devices import use_one_device
from omnistage.stages.recipe.choices import Prompt

if TYPE_CHECKING:
    from omnistage.data.checks.doctor import Report
    from omnistage.data.media import MediaLimits
    from omnistage.stages.presentation import Presentation

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FOUND = 1


def add(commands: Commands) -> None:
    """Add the group `data` to the command line."""
    group = commands.add_parser("data", help="annotation files and their clips").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    _add_check(group)
    _add_show(group)
    _add_convert(group)
    _add_passrate(group)


def _add_check(group: Commands) -> None:
    check = group.add_parser(
        "check",
        help="find broken clips and rows before a run does",
        description="Reads every row and decodes every clip as training will. Exit code 1 when something must be mended, else 0.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="annotation files, taken as one set: what one stage draws from")
    check.add_argument("--format", default="humansense", metavar="F", help="reader of the files (humansense)")
    check.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to (the folder of each file)")
    check.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")
    check.add_argument("--fps", type=positive, metavar="N", help="frames taken per second of a clip (2)")
    check.add_argument("--max-frames", type=_whole, metavar="N", help="most frames of a clip (16)")
    check.add_argument("--max-sound-s", type=positive, metavar="S", help="seconds of sound that are kept (300)")
    check.add_argument("--against", nargs="+", default=[], metavar="FILE", help="annotation files that must share no clip with FILE")
    check.add_argument("--against-format", metavar="F", help="reader of the files of --against (that of FILE)")
    check.add_argument("--against-media-root", metavar="DIR", help="folder of their media (--media-root, else the folder of each file)")
    check.add_argument("--workers", type=_whole, metavar="N", help="processes that decode (one per processor)")
    check.add_argument("--time-limit", type=positive, default=10.0, metavar="S", help="seconds that one clip may take (10)")
    check.add_argument("--quarantine", metavar="FILE", help="write the rows that must not be used, for a run to leave out")
    check.add_argument("--cache", metavar="DIR", help="keep what is decoded, for a run whose media.cache.path is DIR")
    check.add_argument("--cache-gb", type=positive, default=50.0, metavar="N", help="most that the cache takes, in GB (50)")
    check.add_argument("--tokens", metavar="CHECKPOINT", help="count tokens as this model's processor does; its limits are the defaults")
    check.add_argument("--index", metavar="FILE", help="what is known of clips from earlier checks (in the user's cache folder)")
    check.add_argument("--fresh", action="store_true", help="decode every clip, whatever is known of it")
    check.add_argument("--json", action="store_true", help="print all findings as JSON")
    check.set_defaults(command=_check)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="annotation file")
    command.add_argument("--format", default="humansense", metavar="F", help="reader of the file (humansense)")
    command.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to (the file's folder)")
    command.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")


def _add_show(group: Commands) -> None:
    show = group.add_parser(
        "show",
        help="show prompts as a model gets them",
        description="Prints the text with its media placeholders, the tokens of each sense, and what was decoded of each clip.",
    )
    _add_source(show)
    show.add_argument("--model", required=True, metavar="CHECKPOINT", help="model whose processor and limits are used")
    show.add_argument("-n", type=_whole, default=3, metavar="N", help="records (3)")
    show.add_argument("--prompt", choices=get_args(Prompt), help="template of the question (as the checkpoint was trained)")
    show.add_argument("--sheets", metavar="DIR", help="draw each clip there: its frames with their times, and the wave of its sound")
    show.set_defaults(command=_show)


def _add_convert(group: Commands) -> None:
    convert = group.add_parser(
        "convert",
        help="write any format as conversations",
        description="Writes one JSON object a line, as TRL and ms-swift read them; all that a record holds survives the way back.",
    )
    _add_source(convert)
    convert.add_argument(
        "--out", required=True, metavar="FILE.jsonl", help="file to write; media paths in it are relative to the media root"
    )
    convert.set_defaults(command=_convert)


def _add_passrate(group: Commands) -> None:
    rate = group.add_parser(
        "passrate",
        help="measure how often a checkpoint answers each record",
        description="Samples answers at temperature 1 and grades them. The same command again goes on with FILE.jsonl where it stood.",
    )
    rate.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or Hugging Face id of the model")
    rate.add_argument("--data", nargs="+", required=True, metavar="FILE", help="annotation files")
    rate.add_argument("--out", required=True, metavar="FILE.jsonl", help="file of the rates, for a recipe's pass_rate; it only grows")
    rate.add_argument("--samples", type=_whole, default=8, metavar="N", help="answers to each record (8)")
    rate.add_argument("--format", default="humansense", metavar="F", help="reader of the files (humansense)")
    rate.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to (the folder of each file)")
    rate.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")
    rate.add_argument("--limit", type=_whole, metavar="N", help="only the first N records of each file")
    rate.add_argument("--quarantine", metavar="FILE", help="rows that are left out (data check --quarantine)")
    rate.add_argument("--prompt", choices=get_args(Prompt), help="template of the question (as the checkpoint was trained)")
    rate.add_argument("--batch-size", type=_whole, default=8, metavar="N", help="records that are answered together (8)")
    rate.add_argument("--max-new-tokens", type=_whole, default=1024, metavar="N", help="longest answer (1024)")
    rate.add_argument("--seed", type=_whole_or_zero, default=0, metavar="N", help="seed of the answers (0)")
    rate.add_argument("--json", action="store_true", help="print what was found as JSON")
    rate.set_defaults(command=_passrate)


def _records(arguments: argparse.Namespace, limit: int | None = None) -> Iterator[Record]:
    from omnistage.data import formats

    modality = Modality(arguments.modality) if arguments.modality else None
    return formats.read(arguments.format, arguments.file, media_root=arguments.media_root, modality=modality, limit=limit)


def _show(arguments: argparse.Namespace) -> int:
    records = list(_records(arguments, arguments.n))

    from omnistage.rl import policy
    from omnistage.stages import presentation, show

    policy.check_folder(arguments.model, "--model")
    shown = presentation.of_checkpoint(arguments.model)
    if arguments.prompt:
        shown = shown.model_copy(update={"prompt": arguments.prompt})
    encoder = presentation.encoder(shown, arguments.model)
    for text in show.show(records, encoder, Path(arguments.sheets) if arguments.sheets else None):
        print(f"{text}\n")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from omnistage.data.formats import conversations

    out = Path(arguments.out)
    if out.exists():
        raise InputError(f"--out {arguments.out}: exists; choose another file")
    root = Path(arguments.media_root) if arguments.media_root else Path(arguments.file).parent
    conversations.write(_records(arguments), out, media_root=root)
    print(f"{out}: read it with --format conversations --media-root {root}")
    return 0


def _passrate(arguments: argparse.Namespace) -> int:
    from omnistage.stages.recipe import loading as recipes

    for path in arguments.data:
        if not Path(path).exists():
            raise InputError(f"--data {path}: no such file")
    shared = {name: getattr(arguments, name) for name in ("format", "media_root", "modality", "limit", "quarantine")}
    sources = [recipes.build(recipes.Source, {"path": path, **shared}, "passrate") for path in dict.fromkeys(arguments.data)]

    use_one_device()
    from omnistage.stages.measure import pass_rate

    sampling = pass_rate.Sampling(arguments.samples, arguments.max_new_tokens, arguments.batch_size, arguments.seed)
    found = pass_rate.summary(pass_rate.measure(arguments.checkpoint, sources, Path(arguments.out), sampling, prompt=arguments.prompt))
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for path, counts in found.items():
        answered = f"{counts['never']} never answered, {counts['sometimes']} sometimes, {counts['always']} always"
        print(f"{path}: {counts['records']} records, {answered}; mean pass rate {counts['mean']:.3f}")
    print(f"a recipe keeps those that are sometimes answered with  pass_rate: {{file: {arguments.out}}}  at their source")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from omnistage.data import quarantine
    from omnistage.data.checks import doctor

    if not arguments.against and (arguments.against_format or arguments.against_media_root):
        raise InputError("--against-format and --against-media-root are about the files of --against; there are none")
    if arguments.quarantine:
        quarantine.check_target(arguments.quarantine, [*arguments.files, *arguments.against])
    shown = _presentation(arguments)
    cache = (arguments.cache, int(arguments.cache_gb * 1e9)) if arguments.cache else None
    report = doctor.check(
        arguments.files,
        format=arguments.format,
        media_root=arguments.media_root,
        modality=Modality(arguments.modality) if arguments.modality else None,
        limits=_limits(arguments, shown),
        against=arguments.against,
        against_format=arguments.against_format,
        against_media_root=arguments.against_media_root,
        count=arguments.workers,
        index=Path(arguments.index) if arguments.index else None,
        fresh=arguments.fresh,
        cache=cache,
        limit_s=arguments.time_limit,
    )
    if shown is not None:
        _count_tokens(report, shown, arguments)
    if arguments.quarantine:
        report.write_quarantine(arguments.quarantine)
    print(json.dumps(report.to_json(), indent=2) if arguments.json else report.table())
    return FOUND if report.faults else 0


def _presentation(arguments: argparse.Namespace) -> Presentation | None:
    """How the checkpoint is shown its clips, with the limits that were given in place of its own."""
    if not arguments.tokens:
        return None
    from omnistage.stages import presentation

    if not Path(arguments.tokens, "config.json").is_file():
        raise InputError(f"--tokens {arguments.tokens}: no folder of a model (it has no config.json)")
    shown = presentation.of_checkpoint(arguments.tokens)
    return shown.model_copy(update={"media": shown.media.model_copy(update=_given(arguments))})


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    limits = {name: getattr(arguments, name) for name in ("fps", "max_frames", "max_sound_s")}
    return {name: value for name, value in limits.items() if value is not None}


def _limits(arguments: argparse.Namespace, shown: Presentation | None) -> MediaLimits:
    from omnistage.data.media import MediaLimits

    if shown is None:
        return MediaLimits(**_given(arguments))
    return MediaLimits(fps=shown.media.fps, max_frames=shown.media.max_frames, max_sound_s=shown.media.max_sound_s)


def _count_tokens(report: Report, shown: Presentation, arguments: argparse.Namespace) -> None:
    """Adds the tokens of all records without a fault to the report, and those that the processor refuses to its findings."""
    from omnistage.data.checks.findings import Finding
    from omnistage.stages import presentation, token_counts
    from omnistage.stages.recipe.surroundings import Cache

    if arguments.cache:
        shown = shown.model_copy(update={"cache": Cache(path=arguments.cache, max_gb=arguments.cache_gb)})
    encoder = presentation.encoder(shown, arguments.tokens)
    faulty = {(file, record.id, record.source) for finding in report.faults for file, record in finding.rows}
    counted: list[dict[str, Any]] = []
    for file in report.files:
        sound = [record for record in file.records if (file.path, record.id, record.source) not in faulty]
        some, refused = token_counts.count(sound, encoder)
        counted += [{"file": file.path, **one} for one in some]
        report.findings += [Finding("refused", message, ((file.path, record),)) for record, message in refused]
    report.tokens = {"checkpoint": arguments.tokens, "by_modality": token_counts.summary(counted), "records": counted}


def _whole(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"is {text!r}; must be a whole number, at least {least}")
    return int(text)


def _whole_or_zero(text: str) -> int:
    return _whole(text, 0)
