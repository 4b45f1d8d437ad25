"""How clips are shown travels with a model; how a run reads them, and where it keeps what it read, does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from omnistage.data import media
from omnistage.data.errors import InputError, RecipeError
from omnistage.stages import presentation, run_directory
from omnistage.stages.recipe import loading as recipes
from world import World

RECIPE = """
run_dir: {folder}/run
model: {{tiny: {{}}}}
media: {{fps: 2.0, max_frames: 8, min_pixels: 784, max_pixels: 12544{cache}}}
stages:
  - {{name: start, kind: sft, learning_rate: 1e-3, steps: 2, data: [{{path: {folder}/a.json}}]}}
"""


def recipe(folder: Path, cache: str = "") -> recipes.Recipe:
    (folder / "a.json").write_text("[]")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, cache=cache))
    return recipes.load(folder / "recipe.yaml")


def test_no_cache_unless_the_recipe_names_one(tmp_path: Path, world: World) -> None:
    encoder = presentation.encoder(presentation.of_recipe(recipe(tmp_path)), str(world.checkpoint))
    assert encoder.decode is media.decode
    assert encoder.feature_cache is None


def test_encoder_decodes_through_the_runs_cache(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second encoder may not decode at all, and gives the same."""
    shown = presentation.of_recipe(recipe(tmp_path, f', cache: {{path: "{tmp_path}/cache", max_gb: 0.5}}'))
    record = world.records("audio_video")[0]
    plain = presentation.encoder(presentation.of_recipe(recipe(tmp_path)), str(world.checkpoint))(record)
    first = presentation.encoder(shown, str(world.checkpoint))(record)
    monkeypatch.setattr(media, "_picture", None)
    monkeypatch.setattr(media, "heard", None)
    again = presentation.encoder(shown, str(world.checkpoint))(record)
    for row in (first, again):
        assert row.ids == plain.ids
        assert row.pictures is not None
        assert plain.pictures is not None
        assert row.pictures.equal(plain.pictures)
        assert row.mels[0].equal(plain.mels[0])


def test_features_are_kept_where_the_recipe_says(tmp_path: Path, world: World) -> None:
    """In a folder of a quarter of a million bytes, beside one that decoded clips are kept in."""
    caches = f', cache: {{path: "{tmp_path}/clips", max_gb: 0.5}}, feature_cache: {{path: "{tmp_path}/features", max_gb: 0.00025}}'
    kept = presentation.encoder(presentation.of_recipe(recipe(tmp_path, caches)), str(world.checkpoint)).feature_cache
    assert kept is not None
    kept.put("a" * 64, torch.zeros(250, 250))
    assert kept.get("a" * 64) is None
    kept.put("b" * 64, torch.zeros(200, 250))
    assert [path.name for path in (tmp_path / "features" / "entries").rglob("b*") if path.is_file()] == ["b" * 64]


def test_caches_do_not_travel_with_a_model(tmp_path: Path) -> None:
    shown = presentation.of_recipe(recipe(tmp_path, ", cache: {path: here, max_gb: 1.5}, feature_cache: {path: there, max_gb: 1.5}"))
    presentation.save(shown, tmp_path)
    saved = json.loads((tmp_path / presentation.NAME).read_text())
    assert set(saved) == {"media", "prompt", "system_prompt"}
    assert set(saved["media"]) == {"fps", "max_frames", "max_sound_s", "min_pixels", "max_pixels"}
    assert presentation.of_checkpoint(str(tmp_path)) == shown.model_copy(update={"cache": None, "feature_cache": None})


def test_workers_are_the_runs_own(tmp_path: Path, world: World) -> None:
    """One unless the recipe says otherwise; none is allowed; a model does not say how many there were."""
    for said, workers in (("", 1), (", workers: 0", 0), (", workers: 3", 3)):
        shown = presentation.of_recipe(recipe(tmp_path, said))
        assert presentation.encoder(shown, str(world.checkpoint)).workers == workers
        presentation.save(shown, tmp_path)
        assert "workers" not in json.dumps(json.loads((tmp_path / presentation.NAME).read_text()))
        assert presentation.of_checkpoint(str(tmp_path)).workers == 1
    with pytest.raises(RecipeError, match=r"media\.workers: is -1; must be at least 0"):
        recipe(tmp_path, ", workers: -1")


def test_run_may_go_on_with_another_cache_and_with_no_other_limits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_directory.claim(recipe(tmp_path), run, None)
    read = ", cache: {path: here, max_gb: 1.5}, feature_cache: {path: there, max_gb: 1.5}, workers: 2"
    run_directory.claim(recipe(tmp_path, read), run, None)
    changed = recipes.load(tmp_path / "recipe.yaml", ["media.fps=1.0"])
    with pytest.raises(InputError, match=r"media\.fps is 2\.0 there and 1\.0 here"):
        run_directory.claim(changed, run, None)


@pytest.mark.parametrize(("cache", "message"), [("{max_gb: 1}", "cache.path: is missing"), ("{path: x, max_gb: 0}", "must be more than 0")])
def test_cache_needs_a_folder_and_a_size(tmp_path: Path, cache: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, f", cache: {cache}")
