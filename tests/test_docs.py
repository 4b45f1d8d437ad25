"""README and docs say what is so: links lead somewhere, commands parse, recipes hold, names and messages are those of the source."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnistage.launch import cli
from omnistage.rewards import registry
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe import reference
from pages import blocks
from repository import FOLDERS, ROOT, modules

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
TEXTS = {**PAGES, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}
RENEW = "omnistage schema --markdown > docs/recipe.md"
# What others print, in docs/troubleshooting.md.
FOREIGN = {"torch.OutOfMemoryError: CUDA out of memory", "Bus error", "unable to open shared memory object"}
BASE: dict[str, Any] = {
    "run_dir": "runs/x",
    "model": {"path": "m"},
    "launch": {"engine": "zero2", "processes": 1},
    "evaluation": {"data": [{"path": "held_out.json"}]},
}
STAGE: dict[str, Any] = {"name": "x", "kind": "grpo", "modality": "video", "data": [{"path": "a.json"}], "rewards": [{"name": "accuracy"}]}
STAGE |= {"learning_rate": 1e-6, "steps": 300}


def unfenced(text: str) -> str:
    return re.sub(r"^(`{3,}).*?^\1`*$", "", text, flags=re.DOTALL | re.MULTILINE)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of all tables but their heads."""
    for before, line in pairwise(unfenced(text).splitlines()):
        if line.startswith("|") and not line.startswith("|---") and before.startswith("|"):
            yield cells(line)


@cache
def anchors(page: str) -> frozenset[str]:
    """What headings are called in links, as GitHub and myst-parser make it."""
    if page == "docs/changelog.md":
        return anchors("CHANGELOG.md")
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", unfenced(TEXTS[page]), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"`[^`\n]+`", "", unfenced(TEXTS[page]))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), f"{page}: {target}"


def test_every_page_is_in_the_index_and_in_the_readme_in_one_order() -> None:
    index, readme = PAGES["docs/index.md"], PAGES["README.md"]
    listed = re.findall(r"^\| \[.+?\]\((\w+)\.md\)", index, re.MULTILINE)
    assert listed == re.findall(r"^(?:\w+ <)?(\w+)>?$", index.partition(":hidden:")[2], re.MULTILINE)
    assert {f"docs/{name}.md" for name in [*listed, "index"]} == set(PAGES) - {"README.md"}
    assert [name.removeprefix("docs/").lower() for name in re.findall(r"^\| \[.+?\]\(([\w/]+)\.md\)", readme, re.MULTILINE)] == listed


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every `omnistage ...` in a fenced block."""
    for page, text in PAGES.items():
        for block in re.findall(r"^```(?:console|text|bash|sh)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                if found := re.match(r"(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?omnistage (.*)", line):
                    words = shlex.split(found[1].split("; ")[0], comments=True)
                    yield page, words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize(("page", "words"), [pytest.param(*found, id=f"{found[0]}-{number}") for number, found in enumerate(commands())])
def test_commands_parse(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Recipes that are shipped are resolved with what `--set` changes; what changes another one names keys that there are."""
    try:
        arguments = cli.parsed(words)
    except SystemExit:
        pytest.fail(f"{page}: omnistage {shlex.join(words)}: {capsys.readouterr().err}")
    if words[0] not in ("run", "plan"):
        return
    overrides = arguments.overrides
    if arguments.recipe in recipes.shipped():
        assert recipes.load(arguments.recipe, overrides).stages
        return
    assert re.fullmatch(r"[\w.]+\.yaml|RECIPE", arguments.recipe), f"{page}: {arguments.recipe} is no shipped recipe"
    for override in overrides:
        name = re.sub(r"^stages\.\w+\.", "", override.partition("=")[0])
        assert is_key(name), f"{page}: {override}"


def test_there_are_commands_to_parse() -> None:
    assert len(list(commands())) > 60


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for page, text in PAGES.items():
        for language, _, body in blocks(text):
            if language == "yaml" and yaml.safe_load(body) is not None:
                yield page, body


@pytest.mark.parametrize(("page", "body"), [pytest.param(*found, id=f"{found[0]}-{number}") for number, found in enumerate(yaml_blocks())])
def test_examples_of_recipes_hold(page: str, body: str) -> None:
    """A whole recipe, some of its sections, stages, or keys of one stage."""
    given = yaml.safe_load(body)
    if isinstance(given, list):
        given = {"stages": given}
    top = set(recipes.Recipe.model_fields)
    whole = BASE | given if set(given) <= top else BASE | {"stages": [STAGE | given]}
    whole.setdefault("stages", [STAGE])
    recipes.build(recipes.Recipe, whole, page)


def test_the_readmes_reward_reads_answers_as_the_grader_does(tmp_path: Path) -> None:
    (body,) = [body for language, _, body in blocks(PAGES["README.md"]) if language == "python"]
    (tmp_path / "my_rewards.py").write_text(body, encoding="utf-8")
    function = registry.load(registry.RewardSpec(f"{tmp_path / 'my_rewards.py'}:right"))
    said = ["<answer>B</answer>", "<answer> b\n</answer>", "<answer>A, B</answer>", "B", "<answer>B</answer><answer>A</answer>"]
    messages = [[{"role": "assistant", "content": text}] for text in said]
    values = function(messages, target=["B"] * 5, kind=["single_choice"] * 5, options=[["left", "right"]] * 5)
    assert values == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_the_recipe_reference_is_that_of_the_schema() -> None:
    assert PAGES["docs/recipe.md"] == reference.markdown(), f"renew it: {RENEW}"


def test_the_reference_names_every_key_and_setting() -> None:
    text = PAGES["docs/recipe.md"]
    for section in (schema(), *schema()["$defs"].values()):
        for key, field in section.get("properties", {}).items():
            row = rf"^\| `{key}` \|.*{re.escape(re.sub(r'docs/.*', '', field['description']).replace('|', chr(92) + '|'))}"
            assert re.search(row, text, re.MULTILINE), key
    settings = {name: set(reference._settings(function)) for name, function in registry.BUILT_IN.items()}
    assert settings.pop("judge") == settings.pop("quality") == set(reference.JUDGE)
    assert {f"{name}.{key}" for name, keys in settings.items() for key in keys} == set(reference.REWARDS)


@cache
def schema() -> dict[str, Any]:
    return recipes.json_schema()


def schema_keys(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keys of a section of the schema, or of all sections that a value may be."""
    if "$ref" in section:
        return schema_keys(schema()["$defs"][section["$ref"].rpartition("/")[2]])
    if "items" in section:
        return schema_keys(section["items"])
    found: dict[str, Any] = dict(section.get("properties", {}))
    for one in (*section.get("anyOf", ()), *section.get("oneOf", ())):
        found |= schema_keys(one)
    return found


@cache
def trl_fields() -> frozenset[str]:
    """Fields of GRPOConfig, read from the source: nothing heavy is imported for them."""
    trl, transformers = (Path(str(find_spec(name).origin)).parent for name in ("trl", "transformers"))  # type: ignore[union-attr]
    files = (trl / "trainer/grpo_config.py", trl / "trainer/base_config.py", transformers / "training_args.py")
    return frozenset(name for file in files for name in re.findall(r"^    (\w+): ", file.read_text(encoding="utf-8"), re.MULTILINE))


def is_key(name: str) -> bool:
    """Whether a recipe has a key of this name: from the top, else of a stage; `trainer.` is followed by a field of TRL's."""
    first, *rest = name.replace("[]", "").split(".")
    if first == "trainer":
        return len(rest) == 1 and rest[0] in trl_fields()
    top = schema()["properties"]
    keys: Mapping[str, Any] = {**schema_keys(top["stages"]), **top}
    for part in (first, *rest):
        if part not in keys:
            return False
        keys = schema_keys(keys[part])
    return True


def test_what_a_key_is() -> None:
    assert all(
        map(is_key, ("model.lora.rank", "rewards[].config", "data[].pass_rate.file", "trainer.epsilon", "dynamic_sampling.rounds", "start"))
    )
    assert not any(map(is_key, ("model.rank", "rewards[].wieght", "trainer.epsilom", "dynamic_sampling.round", "media.beta")))


def test_migration_names_keys_that_there_are() -> None:
    named = 0
    for page in re.split(r"^## ", PAGES["docs/migration.md"], flags=re.MULTILINE)[2:]:
        for row in rows(page):
            for span in re.findall(r"`([^`]+)`", row[1]):
                name = span.partition(":")[0]
                assert is_key(name), f"{row[0]} -> {span}"
                named += 1
    assert named > 100


def source_texts() -> list[str]:
    """Every text in the source, with a mark for what is filled in."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for path in modules(*FOLDERS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values))
    return found


def test_quoted_messages_are_those_of_the_source() -> None:
    texts, quoted = source_texts(), 0
    for row in rows(PAGES["docs/troubleshooting.md"]):
        for span in re.findall(r"`([^`]+)`", row[0]):
            if " " not in span or span in FOREIGN:
                continue
            wanted = re.compile(".*".join(re.escape(part) for part in span.split("…") if part.strip()), re.DOTALL)
            assert any(wanted.search(text) for text in texts), f"nobody says {span!r}"
            quoted += 1
    assert quoted > 35


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q", str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.stem for path in (tmp_path / "site").glob("*.html")} >= {Path(page).stem for page in PAGES if page != "README.md"}
