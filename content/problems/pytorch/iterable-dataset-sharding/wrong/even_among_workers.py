# expect: wrong answer: values | wrong answer: shape
# Leaves out rounds that are not whole for all workers.
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
        step = self.world * workers
        mine = worker * self.world + self.rank
        kept = None
        for index, element in enumerate(self.source):
            if index % step == mine:
                kept = element
            if index % step == (step - 1 if self.even else mine):
                yield kept
