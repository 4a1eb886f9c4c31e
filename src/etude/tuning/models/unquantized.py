"""Access to the original weights of a model that was loaded quantised.

Some adapter initialisations need the quantisation error or the weight itself; the weight is read
again for them, one at a time.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.tuning.models.bitsandbytes import BitsAndBytesCheckpoint
from etude.tuning.models.checkpoint import Checkpoint, row_slices
from etude.tuning.models.load import ModelOrigin, open_checkpoint
from etude.tuning.models.sources import resolve


class UnquantizedWeights:
    """Reader of weights by module path; a context manager. Files are opened on first use.

    Args:
        origin: origin of the loaded model.
    """

    def __init__(self, origin: ModelOrigin) -> None:
        self._origin = origin
        self._checkpoint: Checkpoint | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()

    def __call__(self, path: str) -> Tensor:
        """Return the weight of the Linear at `path`, (out, in) float32.

        Raises:
            ModelError: the model is no longer local, or has no such weight.
        """
        checkpoint = self._open()
        # Checkpoints of a bare trunk omit the trunk's name.
        names = (f"{path}.weight", f"{path.partition('.')[2]}.weight")
        name = next((name for name in names if name in checkpoint.tensors), None)
        if name is None:
            raise ModelError(f"{checkpoint.path} has no weight for {path}")
        if isinstance(checkpoint, BitsAndBytesCheckpoint) and checkpoint.format_of(name):
            raise ModelError(
                f"{checkpoint.path} stores {path} quantised, but the original weight is needed "
                "here; use the unquantised model, or adapter.init: default"
            )
        info = checkpoint.tensors[name]
        weight = torch.empty(info.shape)
        for start, stop in row_slices(info):
            weight[start:stop] = checkpoint.read_rows(name, start, stop)
        return weight

    def _open(self) -> Checkpoint:
        if self._checkpoint is None:
            source = resolve(self._origin.name)
            if source.path is None:
                raise ModelError(
                    f"{self._origin.name} is no longer on this machine, but its weights are "
                    f"needed: etude models pull {self._origin.name}"
                )
            self._checkpoint = open_checkpoint(source)
        return self._checkpoint
