"""From files, hub data sets and package sources to packed batches of tokens."""

from etude.tuning.data.encode import EncodedSample, EncodedSet, Encoder, EncodingStats
from etude.tuning.data.packing import (
    IGNORED,
    PackedBatch,
    PaddedBatch,
    Step,
    collate,
    collate_padded,
    pack,
    plan_steps,
)
from etude.tuning.data.samples import DataSplit, load_samples
from etude.tuning.data.schema import Message, Role, Sample

__all__ = [
    "IGNORED",
    "DataSplit",
    "EncodedSample",
    "EncodedSet",
    "Encoder",
    "EncodingStats",
    "Message",
    "PackedBatch",
    "PaddedBatch",
    "Role",
    "Sample",
    "Step",
    "collate",
    "collate_padded",
    "load_samples",
    "pack",
    "plan_steps",
]
