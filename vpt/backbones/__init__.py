"""Frozen models: how they are opened, how their places are reached, and how to check that they
are.
"""

from vpt.backbones.acting.attachment import Attachment
from vpt.backbones.base import Backbone
from vpt.backbones.check import Report, check, count_hooks
from vpt.backbones.finding.pooling import Output
from vpt.backbones.inputs.changes import told
from vpt.backbones.inputs.images import Images, Raw
from vpt.backbones.inputs.sound import Sound
from vpt.backbones.inputs.waveform import InputSpec, Waveform
from vpt.backbones.keeping.activations import FeatureCache, first_block
from vpt.backbones.loading import load_backbone
from vpt.backbones.shipped import bundled
from vpt.backbones.skipping import cannot_skip

__all__ = [
    "Attachment",
    "Backbone",
    "FeatureCache",
    "Images",
    "InputSpec",
    "Output",
    "Raw",
    "Report",
    "Sound",
    "Waveform",
    "bundled",
    "cannot_skip",
    "check",
    "count_hooks",
    "first_block",
    "load_backbone",
    "told",
]
