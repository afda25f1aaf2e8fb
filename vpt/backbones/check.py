"""The six properties a backbone must have before prompts on it mean anything, tried on raw
sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate.utils import send_to_device
from torch import nn

from vpt.backbones.base import Backbone
from vpt.backbones.finding.counting import count_hooks
from vpt.backbones.finding.pooling import Output
from vpt.backbones.inputs.images import Raw
from vpt.backbones.trying import COUNT, equal, flat, forms_of, relative, token_counts
from vpt.errors import BackboneError
from vpt.sites import Pixels, Site

# relative; rounding is 1e-6 in fp32 and some 1e-2 in half precision
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1


@dataclass
class Report:
    """Findings as (property, prompt form, passed, detail); `ok` when all passed."""

    name: str
    rows: list[tuple[str, str, bool, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every property held."""
        return all(row[2] for row in self.rows)

    def failed(self) -> dict[str, str]:
        """Prompt form → what failed with it."""
        found: dict[str, list[str]] = {}
        for what, form, passed, detail in self.rows:
            if not passed:
                found.setdefault(form, []).append(f"{what}{f' ({detail})' if detail else ''}")
        return {form: "; ".join(reasons) for form, reasons in found.items()}

    def refuse_failed(self, backbone: Backbone) -> None:
        """Let the backbone refuse the forms that failed. Raises `BackboneError` if the model did
        without any prompt.
        """
        failed = self.failed()
        if "bare" in failed:
            raise BackboneError(f"Prompts would not act as they should on this model.\n{self}")
        backbone.reach.refused |= failed

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if passed else 'FAIL'} {form}: {what}{f' ({detail})' if detail else ''}"
            for what, form, passed, detail in self.rows
        ]
        return "\n".join([f"check of {self.name}", *lines])


def check(backbone: Backbone) -> Report:
    """Try the six properties on a backbone with nothing attached, for every site it can reach.

    1 no sites: bit-equal output · 2 after removal: bit-equal, same hook counts · 3 token count
    unchanged outside spans · 4 the order of the prompts changes nothing · 5 every prompt row gets
    gradient, no frozen weight does · 6 an optimizer step leaves the fingerprint unchanged.
    """
    report = Report(type(backbone.model).__name__)
    x = send_to_device(backbone.inputs.example(2), backbone.device)
    with torch.no_grad():
        bare = backbone.run(x)
        straight = backbone.straight(x)
    report.rows.append(
        (
            "1 no sites: output bit-equal",
            "bare",
            torch.equal(bare.features if bare.logits is None else bare.logits, straight),
            "",
        )
    )
    # try again what an earlier check found wrong
    refused, backbone.reach.refused = backbone.reach.refused, {}
    try:
        forms = forms_of(backbone)
        for name, (parameters, sites) in forms.items():
            with _reported(report, name):
                if name == "recorded" and "deep" in forms and "deep" not in report.failed():
                    _check_recorded(report, backbone, x, sites(False), parameters)
                _check_form(report, name, backbone, x, bare, parameters, sites)
        with _reported(report, "recorded"):
            # nothing acts, and the last block's tokens that nobody reads do not go through it
            if backbone.first_read:
                _check_recorded(report, backbone, x, [Pixels(lambda x, n: (x, n))])
    finally:
        backbone.reach.refused = refused
    return report


@contextmanager
def _reported(report: Report, form: str) -> Iterator[None]:
    """Inside, an exception is a finding: a model of any kind may not run with prompts at all."""
    try:
        yield
    except Exception as error:
        report.rows.append(("it runs", form, False, f"{type(error).__name__}: {error}"))


def _check_form(
    report: Report,
    name: str,
    backbone: Backbone,
    x: Raw,
    bare: Output,
    parameters: list[nn.Parameter],
    sites: Callable[[bool], list[Site]],
) -> None:
    """Properties 2 to 6 for one form."""

    def say(what: str, passed: bool, detail: str = "") -> None:
        report.rows.append((what, name, passed, detail))

    hooks, fingerprint = count_hooks(backbone.model), backbone.fingerprint()
    expected = token_counts(backbone, x)
    if name == "shallow":  # inside its span from block 0 to the last
        expected = [count + COUNT for count in expected[:-1]] + expected[-1:]
    via = "record" if name == "recorded" else "insert"
    attachment = backbone.insert(sites(False), via)
    try:
        counts = token_counts(backbone, x)
        out = flat(backbone.run(x))
        (out * torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)).sum().backward()
    finally:
        attachment.remove()
    if name != "pixels":
        say(
            "3 token count unchanged outside spans",
            counts == expected,
            f"found {counts}, needed {expected}",
        )
        attachment = backbone.insert(sites(True), via)
        try:
            with torch.no_grad():
                error = relative(flat(backbone.run(x)), out.detach())
        finally:
            attachment.remove()
        say(
            "4 order of the prompts changes nothing",
            error < 1e-4,
            f"relative difference {error:.1e}",
        )
    rows = [p.grad.abs().sum(-1) if p.grad is not None else torch.zeros(1) for p in parameters]
    # a pixel may lie where a CNN's pooling looks at its neighbour only; every token row must be
    # reached
    reached = all(bool((row > 0).any() if name == "pixels" else (row > 0).all()) for row in rows)
    say(
        "5 every row gets gradient, no frozen weight does",
        reached and all(p.grad is None for p in backbone.model.parameters()),
    )
    torch.optim.SGD(parameters, lr=0.1).step()
    say(
        "6 an optimizer step leaves the fingerprint unchanged",
        backbone.fingerprint() == fingerprint,
    )
    with torch.no_grad():
        same = equal(backbone.run(x), bare)
    say(
        "2 after removal: output bit-equal, same hooks",
        same and count_hooks(backbone.model) == hooks,
    )


def _check_recorded(
    report: Report,
    backbone: Backbone,
    x: Raw,
    sites: list[Site],
    parameters: Sequence[nn.Parameter] = (),
) -> None:
    """Deep tokens as keys and values must be the same function as deep tokens that go through the
    blocks.

    Their gradient says it louder than the answer, in which a few tokens among many may hardly
    count.
    """
    found, slopes = [], []
    for via in ("insert", "record"):
        attachment = backbone.insert(sites, via)
        try:
            with torch.set_grad_enabled(bool(parameters)):
                out = flat(backbone.run(x))
                weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
                gradients = (
                    torch.autograd.grad((out * weights).sum(), parameters, allow_unused=True)
                    if parameters
                    else ()
                )
        finally:
            attachment.remove()
        found.append(out.detach())
        slopes.append(
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(parameters, gradients, strict=True)
            ]
        )
    errors = [
        relative(found[1], found[0]),
        *(relative(b, a) for a, b in zip(*slopes, strict=True)),
    ]
    most = TOLERANCE if backbone.dtype == torch.float32 else HALF_TOLERANCE
    report.rows.append(
        (
            "equal to inserted tokens",
            "recorded",
            max(errors) < most,
            f"relative difference {errors[0]:.1e}, of gradients {max(errors):.1e}",
        )
    )
