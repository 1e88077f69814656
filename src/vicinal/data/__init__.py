"""Where examples come from: sources, label splits, labelled and unlabelled streams, batched augmentation."""

from __future__ import annotations

from vicinal.data.arrays import from_arrays
from vicinal.data.augment import Augment, augment, views
from vicinal.data.builtin import circle_rings
from vicinal.data.corrupted import CorruptedSet, read_corrupted
from vicinal.data.inputs import Inputs, read_inputs, read_sound_inputs
from vicinal.data.sources import SOURCES, load, source_settings
from vicinal.data.split import Split, SplitIndices, Subset, make_split
from vicinal.data.streams import Batches, Stream, eval_batches
from vicinal.data.strong import Strong, strong_augment
from vicinal.data.types import Batch, Dataset, Examples, Rows, as_float

__all__ = [
    "SOURCES",
    "Augment",
    "Batch",
    "Batches",
    "CorruptedSet",
    "Dataset",
    "Examples",
    "Inputs",
    "Rows",
    "Split",
    "SplitIndices",
    "Stream",
    "Strong",
    "Subset",
    "as_float",
    "augment",
    "circle_rings",
    "eval_batches",
    "from_arrays",
    "load",
    "make_split",
    "read_corrupted",
    "read_inputs",
    "read_sound_inputs",
    "source_settings",
    "strong_augment",
    "views",
]
