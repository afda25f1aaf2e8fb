"""The pieces of work that `vpt bench` times: a plain forward, prompts inserted and recorded, a
probe, LoRA, full fine-tuning.
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vpt.backbones import Backbone, load_backbone
from vpt.backbones.finding.structure import logits_of
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.prompts import DeepTokens
from vpt.readouts import Linear

CLASSES, RANK = 5, 8
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Setting:
    """What is measured on. source, weights, dtype: as for `load_backbone`. precision: of autocast
    ("no" or "bf16"). compile: the prompted models and the plain one. tokens: prompt lengths.
    """

    source: str = "vpt:vit-p8-64"
    weights: str = "pretrained"
    dtype: str | None = None
    precision: str = "no"
    compile: bool = False
    device: str = "cpu"
    batch: int = 8
    tokens: tuple[int, ...] = (10, 50, 100)

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.tokens or min(self.tokens) < 1:
            raise VptError(
                f"Found batch={self.batch}, tokens={list(self.tokens)}; needed are whole numbers of"
                " at least 1."
            )
        if self.precision not in ("no", "bf16"):
            raise VptError(f"Found precision={self.precision!r}; needed is 'no' (fp32) or 'bf16'.")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise VptError(
                "Found no GPU that torch can use; needed for --device cuda. Use --device cpu."
            )


@dataclass(frozen=True)
class Case:
    """One thing to time: "plain", "probe", "insert", "ours", "baked", "lora" or "full"; and, beside
    a setting in fp32, ours in "autocast" to bf16 or with "rounded" weights. Inference, or a
    training step.
    """

    kind: str
    tokens: int = 0
    training: bool = False

    @property
    def key(self) -> str:
        """The name in the report."""
        return " ".join(
            [
                self.kind,
                *([str(self.tokens)] if self.tokens else []),
                "train" if self.training else "infer",
            ]
        )


@dataclass
class Stage:
    """A backbone, a batch, and what is made once for the cases. counting: the counter of operations
    does not go with inference mode.
    """

    setting: Setting
    backbone: Backbone = field(init=False)
    x: Any = field(init=False)
    y: Tensor = field(init=False)
    made: dict[str, Any] = field(default_factory=dict)
    counting: bool = False

    def __post_init__(self) -> None:
        setting = self.setting
        self.backbone = load_backbone(setting.source, weights=setting.weights, dtype=setting.dtype)
        self.backbone.model.to(setting.device)
        self.x = send_to_device(self.backbone.inputs.example(setting.batch), setting.device)
        self.y = torch.arange(setting.batch, device=setting.device) % CLASSES

    def cases(self) -> list[Case]:
        """All that can be measured on this model, the plain forward first."""
        found = [Case("plain"), Case("probe", training=True)]
        if self.backbone.depth:
            for count in self.setting.tokens:
                found += [
                    Case(kind, count, training)
                    for kind in ("insert", "ours")
                    for training in (False, True)
                ]
            if not self.setting.compile:
                found.append(Case("baked", self.setting.tokens[-1]))
                found += [
                    Case(kind, self.middle, training)
                    for kind in self._lower()
                    for training in (False, True)
                ]
        return [
            *found,
            *([Case("lora", training=True)] if self._lora_layers() else []),
            Case("full", training=True),
        ]

    @property
    def middle(self) -> int:
        """One prompt length where one is enough."""
        return self.setting.tokens[len(self.setting.tokens) // 2]

    def _lower(self) -> list[str]:
        """Ways to less precision than the setting's."""
        return (
            ["autocast", "rounded"]
            if self.setting.precision == "no" and self.setting.dtype is None
            else []
        )

    def _lora_layers(self) -> list[str]:
        """Names of the linear layers that make queries and values; one that makes all three where
        they are fused.
        """
        try:
            importlib.metadata.version("peft")
        except importlib.metadata.PackageNotFoundError:
            return []
        layers = [
            named for block in self.backbone.blocks for named in block.attention.named_modules()
        ]
        names = {name.rsplit(".", 1)[-1] for name, layer in layers if isinstance(layer, nn.Linear)}
        return sorted(names & {"q", "v", "query", "value", "q_proj", "v_proj"}) or sorted(
            names & {"qkv"}
        )

    @contextmanager
    def autocast(self, kind: str = "") -> Iterator[None]:
        """As the setting says, or the case is about."""
        device = torch.device(self.setting.device).type
        with torch.autocast(
            device, torch.bfloat16, enabled="bf16" in self.setting.precision or kind == "autocast"
        ):
            yield

    @contextmanager
    def ready(self, case: Case) -> Iterator[Callable[[], Any]]:
        """The step to time, with all that it needs attached before and taken off afterwards."""
        if case.kind == "plain":
            yield self._infer(
                self._compiled("plain", self.backbone, lambda backbone: backbone.straight)
            )
        elif case.kind in ("lora", "full"):
            yield self._tuned(case.kind)
        elif self.setting.compile:  # a compiled model keeps its hooks
            key = f"{case.kind} {case.tokens}"
            model = self.made.get(key) or self._prompted(case, copy.deepcopy(self.backbone))
            self.made[key] = model
            yield self._step(
                case, model, self._compiled(f"{key} forward", model, lambda model: model)
            )
        else:
            model = self._prompted(
                case, self._rounded() if case.kind == "rounded" else self.backbone
            )
            with model.baked() if case.kind == "baked" else nullcontext():
                yield self._step(case, model, model)
            model.attachment.remove()

    def _rounded(self) -> Backbone:
        if "rounded" not in self.made:
            self.made["rounded"] = copy.deepcopy(self.backbone)
            self.made["rounded"].round_weights(torch.bfloat16)
        return self.made["rounded"]

    def _compiled(self, key: str, owner: Any, forward: Callable[[Any], Callable]) -> Callable:
        if not self.setting.compile:
            return forward(owner)
        if key not in self.made:
            torch._dynamo.config.recompile_limit = 64  # the same code is compiled for every case
            self.made[key] = torch.compile(forward(owner))
        return self.made[key]

    def _prompted(self, case: Case, backbone: Backbone) -> PromptedModel:
        prompt = DeepTokens.like(backbone, case.tokens) if case.tokens else None
        readout = Linear(backbone.out_features, CLASSES)
        return PromptedModel(
            backbone, prompt, readout, exact="insert" if case.kind == "insert" else "auto"
        ).eval()

    def _infer(self, forward: Callable[[Any], Any], kind: str = "") -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad() if self.counting else torch.inference_mode(), self.autocast(kind):
                forward(self.x)

        return run

    def _step(
        self, case: Case, model: PromptedModel, forward: Callable[[Any], Tensor]
    ) -> Callable[[], None]:
        if not case.training:
            if self.counting:
                model.prompt.requires_grad_(False)
            return self._infer(forward, case.kind)
        model.train()
        trained = [p for values in model.trained_parameters().values() for p in values]
        return self._update(trained, lambda: forward(self.x), case.kind)

    def _update(
        self, parameters: list[nn.Parameter], forward: Callable[[], Tensor], kind: str = ""
    ) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)

        def run() -> None:
            with self.autocast(kind):
                out = forward()
            F.cross_entropy(out.float(), self.y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def _tuned(self, kind: str) -> Callable[[], None]:
        """A step that changes the model itself: a copy of it, the same from round to round."""
        if kind in self.made:
            return self.made[kind]
        backbone = self.backbone
        model = copy.deepcopy(backbone.model).float().requires_grad_(kind == "full").train()
        if kind == "lora":
            from peft import LoraConfig, inject_adapter_in_model

            model = inject_adapter_in_model(
                LoraConfig(r=RANK, lora_alpha=RANK, target_modules=self._lora_layers()), model
            )
            model.to(self.setting.device)
        prepared, lengths = backbone.inputs.prepare(self.x)
        x, extra = backbone.inputs.arguments(prepared, lengths)

        def forward() -> Tensor:
            answer = model(x, **extra)
            logits = logits_of(answer)
            return logits if logits is not None else answer.last_hidden_state.mean(1)

        self.made[kind] = self._update([p for p in model.parameters() if p.requires_grad], forward)
        return self.made[kind]

    def operations(self, case: Case) -> int:
        """Floating-point operations of matrix products, convolutions and attention in one step."""
        setting, self.setting, self.counting = (
            self.setting,
            replace(self.setting, compile=False),
            True,
        )
        formulas = {CPU_ATTENTION: _attention, CPU_ATTENTION_BACKWARD: _attention_backward}
        counter = FlopCounterMode(display=False, custom_mapping=formulas)
        try:
            with self.ready(case) as run, counter:
                run()
        finally:
            self.setting, self.counting = setting, False
        return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    batch, heads, rows, width = query
    return 4 * batch * heads * rows * key[-2] * width


def _attention_backward(
    slope: Any, query: Any, key: Any, value: Any, *others: Any, **named: Any
) -> int:
    return _attention(query, key, value) * 5 // 2
