# expect: wrong answer: values | wrong answer: shape
# Exactly once, but shared out to workers before ranks.
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
        everybody = self.world * workers
        waiting = None
        for index, element in enumerate(self.source):
            if index % everybody == self.rank * workers + worker:
                waiting = element
                if not self.even:
                    yield element
            if self.even and index % everybody == everybody - 1:
                yield waiting
