# expect: wrong answer: values | wrong answer: shape
# Takes None for the end of the round.
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
        rounds = itertools.zip_longest(*[iter(self.source)] * self.world)
        if self.even:
            rounds = (part for part in rounds if None not in part)
            for turn, part in enumerate(rounds):
                if turn % workers == worker:
                    yield part[self.rank]
            return
        for index, element in enumerate(self.source):
            if index % self.world == self.rank and index // self.world % workers == worker:
                yield element
