"""Training through torch.compile: the same result, and compilers that fail."""

from __future__ import annotations

import warnings

import pytest
import torch
from families import open_tiny
from helpers import SETTINGS, colours, state, tiny_model

import vpt
from vpt.errors import TrainingError
from vpt.training.compiling import compiled


@pytest.mark.long
def test_compiled_training_gives_the_same() -> None:
    plain, compiled = tiny_model(), tiny_model()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dynamo itself
        vpt.fit(compiled, colours(), compile="aot_eager", **(SETTINGS | {"epochs": 1}))
    vpt.fit(plain, colours(), **(SETTINGS | {"epochs": 1}))
    assert torch.allclose(state(compiled), state(plain), atol=1e-4)
    assert "outputs" not in compiled.__dict__


@pytest.mark.long
def test_a_compiler_that_fails_is_said() -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no C++ compiler here")

    torch._dynamo.reset()
    torch._dynamo.register_backend(broken, name="broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            TrainingError,
            match=r"\(broken\) failed on this model.*no C\+\+ compiler.*without compile",
        ):
            vpt.fit(tiny_model(), colours(), compile="broken", **SETTINGS)


def test_a_prompt_made_from_a_query_is_refused() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(
        backbone, vpt.CODAPrompt.like(backbone, 2), vpt.Linear(backbone.out_features, 2)
    )
    with pytest.raises(TrainingError, match="cannot be compiled"), compiled(model, "eager"):
        pass
    with compiled(model, ""):
        assert "outputs" not in model.__dict__
