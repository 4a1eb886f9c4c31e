"""Steps of an optimiser on made-up gradients, and where its state lies."""

from __future__ import annotations

import re
from pathlib import Path

import torch

OPTIMIZERS = [
    {"optimizer": "adamw"},
    {"optimizer": "adamw", "paged": True},
    {"optimizer": "adamw8bit"},
    {"optimizer": "adamw8bit", "paged": True},
    {"optimizer": "lion", "lr": 1e-3},
    {"optimizer": "adafactor"},
]
IDS = ["adamw", "adamw-paged", "adamw8bit", "adamw8bit-paged", "lion", "adafactor"]


def train(make, shapes, steps=5, dtype=torch.float32, seed=0, decades=6, scale=1.0):
    """Return the parameters and the optimiser after some steps on gradients of many magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [
        torch.nn.Parameter(scale * torch.randn(shape, generator=generator).to(dtype))
        for shape in shapes
    ]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            sign = torch.randn(parameter.shape, generator=generator).sign()
            size = 10 ** (-decades * torch.rand(parameter.shape, generator=generator))
            parameter.grad = (sign * size).to(dtype)
        optimizer.step()
    return parameters, optimizer


def mapping_of(tensor):
    """Return what /proc says of the mapping that a tensor's numbers lie in."""
    address = tensor.data_ptr()
    with Path("/proc/self/smaps").open(encoding="utf-8") as file:
        found = None
        for line in file:
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)", line)
            if span:
                low, high = int(span[1], 16), int(span[2], 16)
                found = {"file": span[5]} if low <= address < high else None
            elif found is not None:
                key, _, value = line.partition(":")
                found[key] = value.strip()
                if key == "VmFlags":
                    return found
    raise AssertionError("no such mapping")
