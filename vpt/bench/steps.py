"""The pieces of work that `vpt bench` times: a plain forward, prompts inserted and recorded, a
probe, LoRA, full fine-tuning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones import Backbone, load_backbone
from vpt.errors import VptError
from vpt.model import PromptedModel
from vpt.prompts import DeepTokens
from vpt.readouts import Linear
from vpt.sites import Raw
from vpt.training.operations import count_operations
from vpt.training.tuning import lora_layers, tuned_model

CLASSES = 5

Step = Callable[[], None]
Forward = Callable[[Raw], Tensor]


@dataclass(frozen=True)
class Setting:
    """What is measured. Raises `VptError` for what cannot be.

    source: as for `load_backbone`, as `weights` and `dtype`.
    precision: of autocast, "no" or "bf16".
    compile: whether the prompted models and the plain one are compiled.
    device: "cpu" or "cuda".
    batch: examples at a time.
    tokens: prompt lengths.
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
        tokens = f" {self.tokens}" if self.tokens else ""
        return f"{self.kind}{tokens} {'train' if self.training else 'infer'}"


@dataclass
class Stage:
    """A backbone, a batch, and what is made once for the cases.

    setting: what is measured.
    backbone: opened as the setting says.
    x: a batch of raw input.
    y: its labels `[B]`.
    models: prompted models that stay compiled, by case.
    compiled: compiled forwards, by what they are of.
    tuned: steps that change a copy of the model, by kind.
    rounded: the backbone with weights in bf16, once it is asked for.
    counting: whether operations are counted; the counter does not go with inference mode.
    """

    setting: Setting
    backbone: Backbone = field(init=False)
    x: Raw = field(init=False)
    y: Tensor = field(init=False)
    models: dict[str, PromptedModel] = field(default_factory=dict)
    compiled: dict[str, Forward] = field(default_factory=dict)
    tuned: dict[str, Step] = field(default_factory=dict)
    rounded: Backbone | None = None
    counting: bool = False

    def __post_init__(self) -> None:
        setting = self.setting
        self.backbone = load_backbone(setting.source, weights=setting.weights, dtype=setting.dtype)
        self.backbone.model.to(setting.device)
        self.x = send_to_device(self.backbone.inputs.example(setting.batch), setting.device)
        self.y = torch.arange(setting.batch, device=setting.device) % CLASSES

    def clear(self) -> None:
        """Let go of what was made for the cases."""
        self.models.clear()
        self.compiled.clear()
        self.tuned.clear()
        self.rounded = None

    def wait(self) -> None:
        """Until a GPU has done what it was given."""
        if self.setting.device.startswith("cuda"):
            torch.cuda.synchronize()

    def cases(self) -> list[Case]:
        """All that can be measured on this model, the plain forward first."""
        setting = self.setting
        cases = [Case("plain"), Case("probe", training=True)]
        if self.backbone.depth:
            for count in setting.tokens:
                cases += _both("insert", count) + _both("ours", count)
            if not setting.compile:
                cases.append(Case("baked", setting.tokens[-1]))
                if setting.precision == "no" and setting.dtype is None:
                    cases += _both("autocast", self.middle) + _both("rounded", self.middle)
        if lora_layers(self.backbone):
            cases.append(Case("lora", training=True))
        return [*cases, Case("full", training=True)]

    @property
    def middle(self) -> int:
        """One prompt length where one is enough."""
        return self.setting.tokens[len(self.setting.tokens) // 2]

    @contextmanager
    def autocast(self, kind: str = "") -> Iterator[None]:
        """As the setting says, or the case is about."""
        device = torch.device(self.setting.device).type
        enabled = "bf16" in self.setting.precision or kind == "autocast"
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            yield

    @contextmanager
    def ready(self, case: Case) -> Iterator[Step]:
        """The step to time, with all that it needs attached before and taken off afterwards."""
        if case.kind == "plain":
            yield self._infer(self._compiled("plain", self.backbone.straight))
        elif case.kind in ("lora", "full"):
            yield self._tuned(case.kind)
        elif self.setting.compile:  # a compiled model keeps its hooks
            key = f"{case.kind} {case.tokens}"
            if key not in self.models:
                self.models[key] = self._prompted(case, copy.deepcopy(self.backbone))
            model = self.models[key]
            yield self._step(case, model, self._compiled(f"{key} forward", model))
        else:
            backbone = self._rounded() if case.kind == "rounded" else self.backbone
            model = self._prompted(case, backbone)
            with model.baked() if case.kind == "baked" else nullcontext():
                yield self._step(case, model, model)
            model.attachment.remove()

    def _rounded(self) -> Backbone:
        if self.rounded is None:
            self.rounded = copy.deepcopy(self.backbone)
            self.rounded.round_weights(torch.bfloat16)
        return self.rounded

    def _compiled(self, key: str, forward: Forward) -> Forward:
        if not self.setting.compile:
            return forward
        if key not in self.compiled:
            torch._dynamo.config.recompile_limit = 64  # the same code is compiled for every case
            self.compiled[key] = torch.compile(forward)
        return self.compiled[key]

    def _prompted(self, case: Case, backbone: Backbone) -> PromptedModel:
        prompt = DeepTokens.like(backbone, case.tokens) if case.tokens else None
        readout = Linear(backbone.out_features, CLASSES)
        via = "insert" if case.kind == "insert" else "auto"
        return PromptedModel(backbone, prompt, readout, via=via).eval()

    def _infer(self, forward: Forward, kind: str = "") -> Step:
        def run() -> None:
            with torch.no_grad() if self.counting else torch.inference_mode(), self.autocast(kind):
                forward(self.x)

        return run

    def _step(self, case: Case, model: PromptedModel, forward: Forward) -> Step:
        if not case.training:
            if self.counting:
                model.prompt.requires_grad_(False)
            return self._infer(forward, case.kind)
        model.train()
        trained = [p for values in model.trained_parameters().values() for p in values]
        return self._update(trained, lambda: forward(self.x), case.kind)

    def _update(
        self, parameters: list[nn.Parameter], forward: Callable[[], Tensor], kind: str = ""
    ) -> Step:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)

        def run() -> None:
            with self.autocast(kind):
                out = forward()
            F.cross_entropy(out.float(), self.y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def _tuned(self, kind: str) -> Step:
        """A step that changes the model itself: a copy of it, the same from round to round."""
        if kind not in self.tuned:
            model, forward = tuned_model(self.backbone, kind, self.x, self.setting.device)
            parameters = [p for p in model.parameters() if p.requires_grad]
            self.tuned[kind] = self._update(parameters, forward)
        return self.tuned[kind]

    def operations(self, case: Case) -> int:
        """Floating-point operations of matrix products, convolutions and attention in one step."""
        setting = self.setting
        self.setting = replace(setting, compile=False)
        self.counting = True
        try:
            with self.ready(case) as run:
                return count_operations(run)
        finally:
            self.setting = setting
            self.counting = False


def _both(kind: str, tokens: int) -> list[Case]:
    return [Case(kind, tokens, training) for training in (False, True)]
