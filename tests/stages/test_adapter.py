"""Which modules of a policy get an adapter."""

from __future__ import annotations

import pytest
from peft import get_peft_model

from head_data import SCORES
from omnistage.rl.heads import carried
from omnistage.rl.heads.spec import HeadSpec
from omnistage.stages import training
from omnistage.stages.recipe import loading as recipes
from world import World


@pytest.mark.parametrize("targets", ["all-linear", r".*(q_proj|mos\.layers\.[02])"])
def test_no_adapter_goes_into_a_head(world: World, targets: str) -> None:
    """Its weights would be saved under other names, which no later load finds."""
    stage = {"name": "mos", "kind": "head", "head": SCORES, "data": [{"path": "a.json"}], "learning_rate": 1e-3, "steps": 1}
    given = {"run_dir": "run", "model": {"tiny": {}, "lora": {"rank": 2, "targets": targets}}, "stages": [stage]}
    recipe = recipes.build(recipes.Recipe, given, "recipe")
    [made] = recipe.stages
    assert isinstance(made, recipes.HeadStage)
    model = world.model()
    carried.add(model, HeadSpec.model_validate(SCORES))
    adapted = get_peft_model(model, training.adapter(made, recipe))
    names = [name for name, _ in adapted.named_parameters() if "lora" in name]
    assert names
    assert not [name for name in names if carried.MODULE in name]
