"""`omnistage rewards list | check | replay`: rewards without a GPU. A light module: it reads the arguments and hands over."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnistage.data.errors import InputError
from omnistage.data.records import Modality

if TYPE_CHECKING:
    from omnistage.rewards.registry import RewardSpec
    from omnistage.stages.recipe.reward_use import RewardUse

FOUND = 1


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the group `rewards` to the command line."""
    group = commands.add_parser("rewards", help="reward functions").add_subparsers(title="commands", metavar="COMMAND", required=True)
    group.add_parser("list", help="name the rewards that a recipe can use").set_defaults(command=_list)
    _add_check(group)
    _add_replay(group)


def _add_check(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = group.add_parser(
        "check",
        help="prove rewards on data, without a model",
        description="Calls each reward on completions whose worth is known, made from the records: gold answers in several wordings, wrong "
        "and missing answers, broken forms, long and hostile texts. Exit code 1 when something must be mended, else 0.",
    )
    check.add_argument("specs", nargs="+", metavar="SPEC", help="a known reward, package.module:name, or path/file.py:name")
    check.add_argument("--data", required=True, nargs="+", metavar="FILE", help="annotation files")
    check.add_argument("--format", default="humansense", metavar="F", help="reader of the files (humansense)")
    check.add_argument("--media-root", metavar="DIR", help="folder that media paths are relative to (the folder of each file)")
    check.add_argument("--modality", choices=[str(modality) for modality in Modality], help="how every record is perceived")
    check.add_argument("--limit", type=_whole, default=200, metavar="N", help="records, the first of each file (200)")
    _add_settings(check)
    check.add_argument("--json", action="store_true", help="print all findings as JSON")
    check.set_defaults(command=_check)


def _add_replay(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    replay = group.add_parser(
        "replay",
        help="call rewards on the recorded rollouts of a run",
        description="Shows how a reward's values are spread on what a run's policy wrote, and how they differ from those of another reward "
        "(or from the recorded ones): agreement, groups whose ranking changes, and the completions that differ most.",
    )
    replay.add_argument("run", metavar="RUN", help="folder of a run, of one of its stages, or of rollouts")
    replay.add_argument(
        "--reward",
        required=True,
        metavar="SPEC",
        help="a label of the run's recipe, a known reward, package.module:name, or path/file.py:name",
    )
    replay.add_argument("--against", metavar="SPEC", help="compare with this reward (with what the run recorded under the same name)")
    replay.add_argument("--stage", metavar="STAGE", help="only this stage (all stages with rollouts)")
    replay.add_argument("--differing", type=_whole, default=10, metavar="N", help="completions that differ most to show (10)")
    _add_settings(replay)
    replay.add_argument("--json", action="store_true", help="print the comparison as JSON")
    replay.set_defaults(command=_replay)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="SPEC.KEY=VALUE",
        help="a setting of a reward (accuracy.partial=true)",
    )


def _list(arguments: argparse.Namespace) -> int:
    from omnistage.rewards import registry

    for name, summary in registry.listing():
        print(f"{name:16} {summary}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from omnistage.data import formats
    from omnistage.rewards import registry
    from omnistage.rewards.bench import check

    settings = _settings(arguments.specs, arguments.settings)
    rewards = [registry.load(registry.RewardSpec(spec, config=settings[spec])) for spec in arguments.specs]
    modality = Modality(arguments.modality) if arguments.modality else None
    records = []
    for path in arguments.data:
        records += list(formats.read(arguments.format, path, media_root=arguments.media_root, modality=modality, limit=arguments.limit))
    if not records:
        raise InputError(f"--data {' '.join(arguments.data)}: no records")
    reports = [check.check(reward, records) for reward in rewards]
    if arguments.json:
        print(json.dumps([report.to_json() for report in reports], indent=2, ensure_ascii=False))
    else:
        print("\n".join(report.table() for report in reports))
    return FOUND if any(report.findings for report in reports) else 0


def _replay(arguments: argparse.Namespace) -> int:
    from omnistage.rewards import registry
    from omnistage.rewards.bench import replay

    names = [arguments.reward] + ([arguments.against] if arguments.against else [])
    settings = _settings(names, arguments.settings)
    recorded = _recorded(Path(arguments.run), arguments.stage)
    specs = [_as_recorded(name, recorded) or registry.RewardSpec(name) for name in names]
    specs = [dataclasses.replace(spec, config={**spec.config, **settings[name]}) for name, spec in zip(names, specs, strict=True)]
    reward, *others = (registry.load(spec) for spec in specs)
    report = replay.replay(arguments.run, reward, others[0] if others else None, stage=arguments.stage, most=arguments.differing)
    print(json.dumps(report.to_json(), indent=2, ensure_ascii=False) if arguments.json else report.table())
    return 0


def _recorded(run: Path, stage: str | None) -> list[RewardUse]:
    """The rewards of the run that a folder belongs to (or of one of its stages), as its recipe names them; none where it has no recipe."""
    from omnistage.stages.recipe.reward_use import RewardUse

    path = next((folder / "run.json" for folder in [run.resolve(), *run.resolve().parents][:3] if (folder / "run.json").is_file()), None)
    if path is None:
        return []
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["recipe"]["stages"]
        return [RewardUse(**use) for each in stages if stage in (None, each["name"]) for use in each.get("rewards", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no record of a run ({type(error).__name__})") from error


def _as_recorded(name: str, recorded: list[RewardUse]) -> RewardSpec | None:
    """The reward with the settings and for the rows that the run used it, found by its label or its name; None for one that it did not."""
    labelled = [use for use in recorded if name == (use.label or use.name.rpartition(":")[2])]
    uses = labelled or [use for use in recorded if use.name == name]
    specs = [dataclasses.replace(use.spec(), weight=1.0) for use in uses]
    if any(spec != specs[0] for spec in specs):
        raise InputError(f"reward {name!r} stands in this run's recipe in several ways; choose one by --stage or by its label")
    return specs[0] if specs else None


def _settings(specs: list[str], settings: list[str]) -> dict[str, dict[str, Any]]:
    """What `--set` gives each reward."""
    given: dict[str, dict[str, Any]] = {spec: {} for spec in specs}
    for setting in settings:
        left, equals, value = setting.partition("=")
        spec, dot, key = left.rpartition(".")
        if not (equals and dot and spec in given):
            raise InputError(f"--set {setting!r}: must be SPEC.KEY=VALUE with one of the rewards: {', '.join(given)}")
        given[spec][key] = _value(setting, value)
    return given


def _value(setting: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting!r}: the value is no YAML") from error


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; must be a whole number, at least 1")
    return int(text)
