# expect: wrong answer: values | wrong answer: shape
# Parts may differ by one.
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
        mine = itertools.islice(self.source, self.rank, None, self.world)
        return itertools.islice(mine, worker, None, workers)
