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
from etude.tuning.models.checkpoint import row_slices
from etude.tuning.models.load import ModelFiles


class UnquantizedWeights:
    """Reads weights by module path; use as a context manager.

    Args:
        files: of the loaded model; opened at the first weight, if they are not open.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files

    def __enter__(self) -> Self:
        self._files.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def __call__(self, path: str) -> Tensor:
        """Return the weight of the Linear at `path`, (out, in) float32.

        Raises:
            ModelError: the model is not on this machine, or has no such weight.
        """
        checkpoint = self._files.named
        # Checkpoints of a model's trunk lack the name of the trunk.
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
        return weight.T.contiguous() if path in self._files.transposed else weight
