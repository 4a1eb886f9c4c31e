from itertools import islice

from torch.utils.data import Dataset


def drive(submission, tokens, length, stride, indices):
    dataset = submission.WindowDataset(tokens, length, stride)
    count = len(dataset)
    return {
        "length": count,
        "items": [dataset[index] for index in indices],
        # A dataset that never raises IndexError would go on for ever.
        "iterated": list(islice(iter(dataset), 300)),
        "is a Dataset": isinstance(dataset, Dataset),
    }
