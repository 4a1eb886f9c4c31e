from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info


class ShardedStream(IterableDataset):
    """The part of a stream that belongs to one worker of one rank."""

    def __init__(self, source: Iterable[Any], rank: int, world: int, even: bool = False) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self.source, self.rank, self.world, self.even = source, rank, world, even

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's elements, in the order of the source."""
        # Here and not in __init__: that ran before there were any workers.
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        # An even part waits until the last rank has got its element, too.
        release = self.world - 1 if self.even else self.rank
        mine = None
        for index, element in enumerate(self.source):
            turn, place = divmod(index, self.world)
            if turn % workers != worker:
                continue
            if place == self.rank:
                mine = element
            if place == release:
                yield mine
