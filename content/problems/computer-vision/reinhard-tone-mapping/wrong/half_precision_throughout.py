# expect: wrong answer: values | wrong answer: not finite
import torch


def tone_map(images, key=0.18, white=None):
    limit = float("inf") if white is None else white
    share = images.new_tensor([0.2126, 0.7152, 0.0722]).reshape(3, 1, 1)
    luminance = (images * share).sum(1, keepdim=True)
    average = (luminance + 1e-6).log().mean(dim=(1, 2, 3), keepdim=True).exp()
    scale = key / average
    scaled = scale * luminance
    return (images * scale * ((1 + scaled / limit**2) / (1 + scaled))).clamp(max=1)
