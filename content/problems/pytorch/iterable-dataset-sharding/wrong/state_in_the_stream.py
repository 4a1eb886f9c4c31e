# expect: wrong answer: values | wrong answer: shape
# Two iterators share one counter.
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
        self.index = -1
        for element in self.source:
            self.index += 1
            turn, place = divmod(self.index, self.world)
            if turn % workers != worker:
                continue
            if place == self.rank:
                self.mine = element
            if place == (self.world - 1 if self.even else self.rank):
                yield self.mine
