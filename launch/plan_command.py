"""`omnistage plan`: what a recipe would need and take, before a GPU is used."""

from __future__ import annotations

import argparse
import json

from omnistage.launch.arguments import positive, whole


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    plan = commands.add_parser(
        "plan",
        help="tokens, memory, time and disk of a recipe, without its weights",
        description="Counts parameters from the model's configuration and tokens on a sample of the data, and says what each stage needs "
        "of a GPU's memory by part and engine, what would make it fit, and about how long a step takes. Loads no weights. Exit code 1 "
        "when a stage does not fit.",
    )
    plan.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe (demo, humansense_7b, chatpose ...)")
    plan.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a value (launch.engine=zero2)"
    )
    plan.add_argument("--gpu-gb", type=positive, default=80.0, metavar="N", help="memory of a GPU, in GB (80)")
    plan.add_argument("--sample", type=whole, default=64, metavar="N", help="rows of each stage whose tokens are counted (64)")
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    plan.set_defaults(command=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from omnistage.stages.recipe import loading as recipes

    recipe = recipes.load(arguments.recipe, arguments.overrides)
    # What is wrong with a recipe is said before torch loads.
    from omnistage.rl import policy
    from omnistage.stages.plan import report

    policy.quiet_libraries()
    found = report.plan(recipe, gpu_gb=arguments.gpu_gb, sample=arguments.sample)
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(report.lines(found)))
    return 0 if all(stage["fits"] for stage in found["stages"]) else 1
