"""The `omnistage` command. Exit codes: 0, 1 (the work failed), 2 (bad input), 75 (asked to stop, and saved), 130 (interrupted).

Nothing heavy is imported before a command needs it, so that `--help` answers at once and a wrong recipe is refused before torch loads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from omnistage.data.errors import InputError, OmnistageError, Preempted, unknown_name
from omnistage.launch import data_commands, evaluation_commands, head_commands, plan_command, report_command, reward_commands, watch_command
from omnistage.launch.arguments import whole_or_zero
from omnistage.launch.devices import use_one_device
from omnistage.launch.failures import Failure

if TYPE_CHECKING:
    from omnistage.stages.recipe.loading import Recipe

FAILED, INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors raised on purpose become one line on stderr."""
    from omnistage.stages import asked

    arguments = parsed(argv)
    try:
        try:
            code: int = arguments.command(arguments)
        finally:
            # Not behind a run: a command may have more to do, and is heard until it ends.
            asked.over()
    except (OmnistageError, Preempted) as error:
        return report(error)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    return code


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What a command line asks for; `command` is the function that does it."""
    return _parser().parse_args(argv)


def report(error: OmnistageError | Preempted) -> int:
    """Prints the error as one line on stderr and returns its exit code."""
    failure = failure_of(error)
    say(failure.message)
    return failure.code


def failure_of(error: OmnistageError | Preempted) -> Failure:
    """The error's one line and its exit code."""
    return Failure(error.exit_code, " ".join(str(error).splitlines()))


def say(message: str) -> None:
    """Prints the one line on stderr that a command ends with when it did not do its work."""
    print("omnistage:", message, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as all other bad input is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.replace(' ', ': ', 1)}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="omnistage", description="Fine-tunes omni-modal language models, one modality at a time, and measures what each stage gained."
    )
    parser.add_argument("--version", action="version", version=f"omnistage {metadata.version('omnistage')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run a recipe's stages", description="Runs the stages of a recipe in order.")
    run.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe (demo, humansense_7b, chatpose ...)")
    run.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a value (stages.video.steps=5)"
    )
    alone = run.add_mutually_exclusive_group()
    alone.add_argument("--from", dest="first", metavar="STAGE", help="start at this stage")
    alone.add_argument("--only", metavar="STAGE", help="run this stage alone")
    alone.add_argument("--until", metavar="STAGE", help="stop behind this stage")
    run.add_argument("--run-dir", metavar="DIR", help="folder of the run, in place of the recipe's")
    run.add_argument("--dry-run", action="store_true", help="say what would run, and write nothing")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="run the whole pipeline on a tiny model and rendered clips, on a CPU")
    demo.add_argument("--run-dir", metavar="DIR", help="folder of the run (runs/demo)")
    demo.add_argument("--seed", type=whole_or_zero, metavar="N", help="seed of the clips, the weights and the sampling (0)")
    demo.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe")
    demo.add_argument("--without-heads", action="store_true", help="leave out the second recipe, demo_heads: opinion scores and poses")
    demo.set_defaults(command=_demo)

    plan_command.add(commands)
    evaluation_commands.add(commands)
    data_commands.add(commands)

    doctor = commands.add_parser("doctor", help="what this machine has, what is missing, and what mends it")
    doctor.add_argument("--run-dir", default="runs", metavar="DIR", help="where runs will be written (runs)")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(command=_doctor)

    schema = commands.add_parser("schema", help="print the JSON schema of a recipe, for editors")
    schema.add_argument("--markdown", action="store_true", help="print the recipe reference in its place (docs/recipe.md)")
    schema.set_defaults(command=_schema)

    reward_commands.add(commands)
    head_commands.add(commands)
    report_command.add(commands)
    watch_command.add(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from omnistage.stages.recipe import loading as recipes

    overrides = list(arguments.overrides)
    recipe = recipes.load(arguments.recipe, [*overrides, *_run_dir_override(arguments.run_dir)])
    for name in (arguments.first, arguments.only, arguments.until):
        if name is not None and name not in (names := [stage.name for stage in recipe.stages]):
            raise InputError(f"{arguments.recipe}: {unknown_name('stage', name, names)}")
    if arguments.dry_run:
        print(recipes.describe(recipe))
        return 0
    return _start(recipe, recipes.find(arguments.recipe), arguments.first, arguments.only, arguments.until)


def _demo(arguments: argparse.Namespace) -> int:
    from omnistage.stages.recipe import loading as recipes

    seeds = [] if arguments.seed is None else [f"seed={arguments.seed}", f"synth.seed={arguments.seed}"]
    heads_dir = None if arguments.run_dir is None else f"{arguments.run_dir}_heads"
    chosen = [("demo", [*arguments.overrides, *_run_dir_override(arguments.run_dir)])]
    if not arguments.without_heads:
        chosen.append(("demo_heads", _run_dir_override(heads_dir)))
    made: list[Path] = []
    for name, overrides in chosen:
        path = recipes.shipped()[name]
        recipe = recipes.load(path, [*seeds, *overrides])
        if code := _start(recipe, path):
            return code
        made.append(Path(recipe.run_dir))
    print("\nthe runs as pages to look at:")
    for run in made:
        report_command.write(run)
    return 0


def _run_dir_override(run_dir: str | None) -> list[str]:
    return [] if run_dir is None else [f"run_dir={json.dumps(run_dir, ensure_ascii=False)}"]


def _start(recipe: Recipe, source: Path, first: str | None = None, only: str | None = None, until: str | None = None) -> int:
    from omnistage.stages import asked

    asked.note()
    # DeepSpeed needs torchrun's environment even for one process
    if recipe.launch.engine != "single":
        from omnistage.launch import processes

        return processes.start(recipe, source, first, only, until)
    use_one_device()
    from omnistage.stages import pipeline

    asked.listen()
    print(pipeline.run(recipe, first=first, only=only, until=until, source=source))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from omnistage.launch import doctor

    found = list(doctor.examine(Path(arguments.run_dir)))
    print(json.dumps(doctor.as_data(found), indent=2, ensure_ascii=False) if arguments.json else "\n".join(doctor.lines(found)))
    return FAILED if any(one.level == "fault" for one in found) else 0


def _schema(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        from omnistage.stages.recipe import reference

        print(reference.markdown(), end="")
        return 0
    from omnistage.stages.recipe import loading as recipes

    print(json.dumps(recipes.json_schema(), indent=2))
    return 0
