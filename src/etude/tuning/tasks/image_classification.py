"""Image classification: a class for an image.

The images are a folder of folders, each named by its class, or files that a table names
(`data.image`) with their labels. All but the input is as for text classification: the split by
class, weights of classes, metrics, the head that is trained in full beside the adapter and saved
with it. How images are prepared is saved with the names of the classes, and hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.core.errors import AdapterError, DataError, ModelError, RunError
from etude.core.progress import Progress
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.named_files import NamedFile
from etude.tuning.data.account import Account
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.counts import Counts
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.image_rows import ImageReader
from etude.tuning.data.labelled import load_labelled
from etude.tuning.data.labels import (
    LabelKind,
    describe_labels,
    require_learnable,
    unknown_labels,
)
from etude.tuning.data.schema import DataSplit, Sample
from etude.tuning.images.decode import decode
from etude.tuning.images.encoded import EncodedImage, Room
from etude.tuning.images.preparation import Preparation
from etude.tuning.models.heads import Head
from etude.tuning.models.load import LoadedModel
from etude.tuning.objectives.base import Objective
from etude.tuning.objectives.classification import class_logits
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import ClassPrediction, Prediction, TaskRecord
from etude.tuning.tasks.baselines import majority
from etude.tuning.tasks.classifier_objective import (
    class_facts,
    class_weights_of,
    objective_of,
    weights_note,
)
from etude.tuning.tasks.held_out import require_held_out, whole_files
from etude.tuning.tasks.text_classification import TextClassification
from etude.tuning.training.measurement import Measurement

HEAD = "image-classification"
PREPARATION = "preparation"
"""Key of the preparation of images in task.json."""


class ImageEncoder:
    """Encoder of images and their classes.

    Args:
        preparation: of the model's images.
        spec: the data section.
        labels: names of the classes, in the order of the model's outputs.
        head: what is saved with the head.
    """

    kind: LabelKind = "class"
    thresholds = None

    def __init__(
        self, preparation: Preparation, spec: DataSpec, labels: Sequence[str], head: Head
    ) -> None:
        self.preparation = preparation
        self.spec = spec
        self.labels = tuple(labels)
        self.options: dict[str, Any] = dict(head.options)
        self._index = {label: index for index, label in enumerate(self.labels)}

    def encode_all(self, samples: Iterable[Sample], progress: Progress | None = None) -> EncodedSet:
        """Prepare images; as many as there is room for are kept.

        Raises:
            DataError: a label is not a class, or a file has changed since it was read.
        """
        counts, room = Counts(), Room()
        kept: list[EncodedSample] = []
        sources = list(samples)
        unknown = [sample for sample in sources if str(sample.label) not in self._index]
        if unknown:
            raise DataError(unknown_labels(unknown, sources, self.labels))
        for sample in sources:
            image = EncodedImage(
                Path(sample.image or ""), sample.text or "", self.preparation, room
            )
            if room.left > 0:
                image.pixels()
            kept.append(encoded_image(image, sample.origin, self._index[str(sample.label)]))
            counts.add([self.preparation.tokens], 1, None)
            if progress is not None:
                progress.advance(1)
        return EncodedSet(kept, sources, counts.stats())


def encoded_image(image: EncodedImage, origin: str, label: int | None = None) -> EncodedSample:
    """Return the sample of an image."""
    numbers = image.fingerprint()
    return EncodedSample(
        numbers, np.zeros(len(numbers), dtype=np.bool_), origin, label=label, image=image
    )


class ImageClassification(TextClassification):
    """Task of assigning a class to an image."""

    name = "image-classification"

    def read(self, recipe: Recipe) -> DataSplit:
        """Decode images, read labels, and split them by class; what is no image is counted.

        Raises:
            DataError: too many images are damaged, or the labels cannot be learnt.
        """
        split = read_images(recipe.data, recipe.train.seed)
        require_learnable(split, recipe.data, "class")
        require_held_out(split)
        notes = [*split.notes, *describe_labels("class", split.train, recipe.data)]
        return DataSplit(split.train, split.eval, notes)

    def head(self, split: DataSplit, recipe: Recipe) -> Head:
        """Return a head with an output for each class of the training data."""
        labels = require_learnable(split, recipe.data, "class")
        return Head(HEAD, labels, recipe.train.seed)

    def expected_head(self, recipe: Recipe) -> Head:
        """Return a head with two classes: how many there are, the data say."""
        return Head(HEAD, seed=recipe.train.seed)

    def saved_head(self, record: TaskRecord) -> Head:
        """Return the saved head, with its classes in order and its preparation of images.

        Raises:
            AdapterError: the record has no classes, or the preparation is not what was saved.
        """
        if len(record.labels) < 2:
            raise AdapterError(
                "the class names of this classifier are missing (task.json), so its outputs cannot "
                "be interpreted; restore the file"
            )
        Preparation.from_json(record.options.get(PREPARATION))
        return Head(HEAD, record.labels, options=dict(record.options))

    def encoder(self, loaded: LoadedModel, recipe: Recipe) -> Any:
        """Return an `ImageEncoder` with the saved preparation; of a new head, with the model's.

        Raises:
            ModelError: `data.image_size` is a size that the model cannot have.
        """
        stated = loaded.head.options.get(PREPARATION)
        preparation: Preparation = loaded.tokenizer
        if stated is not None:
            preparation = Preparation.from_json(stated)
        elif (side := recipe.data.image_size) is not None:
            preparation = preparation.of_side(side)
            _require_size(loaded, preparation)
        return ImageEncoder(preparation, recipe.data, loaded.head.labels, loaded.head)

    def encode(
        self, split: DataSplit, loaded: LoadedModel, recipe: Recipe, progress: Progress
    ) -> PreparedData:
        """Prepare images for the model."""
        encoder: ImageEncoder = self.encoder(loaded, recipe)
        progress.start("Preparing images", len(split.train) + len(split.eval), "images")
        train = encoder.encode_all(split.train, progress)
        held_out = encoder.encode_all(split.eval, progress)
        progress.finish()
        notes = [*split.notes, _prepared(encoder.preparation)]
        weights = class_weights_of(recipe, encoder, train)
        if weights is not None:
            notes.append(weights_note(weights, encoder.labels))
        return PreparedData(train, held_out, encoder, notes, class_facts(encoder, train))

    def read_evaluation(
        self,
        files: Sequence[NamedFile],
        loaded: LoadedModel,
        recipe: Recipe,
        progress: Progress,
    ) -> PreparedData:
        """Read every image of folders or tables with the run's columns."""
        encoder: ImageEncoder = self.encoder(loaded, recipe)
        split = read_images(whole_files(recipe.data, files), recipe.train.seed)
        encoded = encoder.encode_all(split.train, progress)
        return PreparedData(encoded, encoded, encoder, split.notes)

    def record(self, loaded: LoadedModel, encoder: Any, recipe: Recipe) -> TaskRecord:
        """Return the names of the classes, and how images are prepared."""
        del recipe
        options = {PREPARATION: encoder.preparation.as_json()}
        return TaskRecord(self.name, loaded.head.labels, options)

    def finish(self, folder: Path, loaded: LoadedModel, recipe: Recipe) -> None:
        """Write the preparation of images as transformers reads it."""
        try:
            self.encoder(loaded, recipe).preparation.save_pretrained(folder)
        except OSError as error:
            raise RunError(f"cannot write into {folder}: {error.strerror}") from None

    def layout(self, recipe: Recipe, loaded: LoadedModel) -> Layout:
        """Return a batch of images, which no row is shared by."""
        del recipe, loaded
        return Layout(packed=False)

    def objective(
        self,
        recipe: Recipe,
        loaded: LoadedModel,
        data: PreparedData,
        folder: RunFolder,
        progress: Progress,
    ) -> Objective:
        """Return the cross-entropy of classes, and the score of the majority class."""
        del loaded, folder, progress
        encoder: ImageEncoder = data.encoder
        found = majority(encoder.kind, len(encoder.labels), data.train, data.eval)
        return objective_of(recipe, encoder, data.train, found)

    def sample_records(
        self, data: PreparedData, before: Measurement, after: Measurement
    ) -> list[dict[str, Any]]:
        """Return path, label, and base and tuned predictions of the first held-out images."""
        records = super().sample_records(data, before, after)
        for record, sample in zip(records, data.eval.sources, strict=False):
            record["prompt"] = sample.image
        return records

    def predict(
        self,
        loaded: LoadedModel,
        encoder: Any,
        inputs: Sequence[Any],
        recipe: Recipe,
    ) -> list[Prediction]:
        """Return the class of each image.

        Args:
            loaded: the model.
            encoder: from `encoder`.
            inputs: paths of image files.
            recipe: gives the size of a micro-batch.

        Raises:
            UnreadableImageError: a file is no image.
        """
        preparation: Preparation = encoder.preparation
        layout = self.layout(recipe, loaded)
        count = max(1, recipe.train.micro_tokens // preparation.tokens)
        found: list[Prediction] = []
        loaded.model.eval()
        with torch.inference_mode():
            for start in range(0, len(inputs), count):
                samples = [
                    _sample_of(Path(str(one)), preparation) for one in inputs[start : start + count]
                ]
                for scores in class_logits(loaded.model, Batch(samples, layout)).softmax(1):
                    shares = dict(zip(encoder.labels, map(float, scores), strict=True))
                    best = max(shares, key=lambda label: shares[label])
                    found.append(ClassPrediction(best, shares))
        return found


def read_images(spec: DataSpec, seed: int, account: Account | None = None) -> DataSplit:
    """Read the images that `spec` names and split them by class.

    Args:
        spec: source and split of the data.
        seed: seed of the split.
        account: counts what the rows contain.

    Raises:
        DataError: no image can be read, too many are damaged, or a label is missing.
    """
    reader = ImageReader(spec)
    spec = spec.model_copy(update={"label_kind": "class"})
    split = load_labelled(spec, seed, account=account, reader=reader.factory)
    split.notes.extend(reader.notes())
    return split


def _sample_of(path: Path, preparation: Preparation) -> EncodedSample:
    image = EncodedImage(path, decode(path).digest, preparation, Room(0))
    return encoded_image(image, str(path))


def _prepared(preparation: Preparation) -> str:
    height, width = preparation.size
    return f"images are prepared as {height} × {width} pixels (hash {preparation.digest[:12]})"


def _require_size(loaded: LoadedModel, preparation: Preparation) -> None:
    """Refuse a size that a model with an embedding of each position cannot have.

    Raises:
        ModelError: naming the model's own.
    """
    config: Any = loaded.model.config
    own: Any = getattr(config, "image_size", None)
    if own is None or not hasattr(config, "patch_size"):
        return
    if preparation.size != ((own, own) if isinstance(own, int) else tuple(own)):
        raise ModelError(
            f"data.image_size {preparation.size[0]}: {loaded.origin.name} has positions for images "
            f"of {own} pixels alone; omit it"
        )
