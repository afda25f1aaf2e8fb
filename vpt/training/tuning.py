"""What prompts are compared with: LoRA and full fine-tuning, of a copy of the model."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable

from accelerate.utils import send_to_device
from torch import Tensor, nn

from vpt.backbones import Backbone
from vpt.backbones.finding.structure import logits_of
from vpt.sites import Raw

RANK = 8


def lora_layers(backbone: Backbone) -> list[str]:
    """Names of the linear layers that make queries and values; one that makes all three where they
    are fused. None without peft.
    """
    try:
        importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        return []
    layers = [pair for block in backbone.blocks for pair in block.attention.named_modules()]
    names = {name.rsplit(".", 1)[-1] for name, layer in layers if isinstance(layer, nn.Linear)}
    apart = sorted(names & {"q", "v", "query", "value", "q_proj", "v_proj"})
    return apart or sorted(names & {"qkv"})


def tuned_model(
    backbone: Backbone, kind: str, x: Raw, device: str
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """(a copy of the model that learns, its forward on a batch). kind: "lora" or "full"."""
    model = copy.deepcopy(backbone.model).float().requires_grad_(kind == "full").train()
    if kind == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=lora_layers(backbone))
        model = inject_adapter_in_model(config, model)
        model.to(device)
    prepared, lengths = backbone.inputs.prepare(send_to_device(x, backbone.device))
    first, others = backbone.inputs.arguments(prepared, lengths)
    first, others = send_to_device((first.float(), others), device)
    backbone.adjust(model)

    def forward() -> Tensor:
        answer = model(first, **others)
        logits = logits_of(answer)
        return logits if logits is not None else answer.last_hidden_state.mean(1)

    return model, forward
