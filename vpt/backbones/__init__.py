"""Frozen models: how they are opened, how their places are reached, and how to check that they are."""

from vpt.backbones.attachment import Attachment
from vpt.backbones.base import Backbone, Output
from vpt.backbones.check import Report, check, count_hooks
from vpt.backbones.feature_cache import FeatureCache, first_block
from vpt.backbones.image_processors import told
from vpt.backbones.inputs import Images, Raw
from vpt.backbones.loading import bundled, load_backbone
from vpt.backbones.sound import Sound
from vpt.backbones.waveform import InputSpec, Waveform

__all__ = ["Attachment", "Backbone", "FeatureCache", "Images", "InputSpec", "Output", "Raw", "Report", "Sound", "Waveform",
           "bundled", "check", "count_hooks", "first_block", "load_backbone", "told"]  # fmt: skip
