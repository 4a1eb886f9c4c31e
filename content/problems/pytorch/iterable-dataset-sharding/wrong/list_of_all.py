# expect: runtime error | wrong answer: values
# Reads the source to its end before it yields.
import itertools

from torch.utils.data import IterableDataset, get_worker_info


class ShardedStream(IterableDataset):
    def __init__(self, source, rank, world, even=False):
        if not 0 <= rank < world:
            raise ValueError("rank")
        self.source, self.rank, self.world, self.even = source, rank, world, even

    def __iter__(self):
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        elements = list(self.source)
        if self.even:
            elements = elements[: len(elements) // self.world * self.world]
        return iter(elements[self.rank :: self.world][worker::workers])
