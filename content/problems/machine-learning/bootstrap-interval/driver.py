import torch


def correlation(sample):
    x, y = (sample - sample.mean(0)).T
    return (x @ y / (x.norm() * y.norm())).item()


STATISTICS = {
    "mean": lambda sample: sample.mean().item(),
    "median": lambda sample: sample.median().item(),
    "largest": lambda sample: sample.max().item(),
    "total": lambda sample: sample.sum().item(),
    "root": lambda sample: sample.mean().sqrt().item(),
    "inverse": lambda sample: (1 / sample.sum()).item(),
    "slope": lambda sample: (sample * torch.arange(len(sample))).mean().item(),
    "accuracy": lambda rows: (rows[:, 0] == rows[:, 1]).double().mean().item(),
    "difference": lambda rows: (rows[:, 0] - rows[:, 1]).mean().item(),
    "correlation": correlation,
}


def drive(submission, values, indices, name, level):
    return submission.bootstrap_interval(values, indices, STATISTICS[name], level)
