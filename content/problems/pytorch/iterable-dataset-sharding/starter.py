from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset


class ShardedStream(IterableDataset):
    """The part of a stream that belongs to one worker of one rank."""

    def __init__(self, source: Iterable[Any], rank: int, world: int, even: bool = False) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's elements, in the order of the source."""
        raise NotImplementedError
