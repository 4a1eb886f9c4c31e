# expect: wrong answer: values
# Divides by the white point instead of its square.
import torch


def tone_map(images, key=0.18, white=None):
    limit = float("inf") if white is None else white
    colors = images.float() if images.dtype == torch.float16 else images
    share = colors.new_tensor([0.2126, 0.7152, 0.0722]).reshape(3, 1, 1)
    luminance = (colors * share).sum(1, keepdim=True)
    average = (luminance + 1e-6).log().mean(dim=(1, 2, 3), keepdim=True).exp()
    scale = key / average
    scaled = scale * luminance
    factor = scale * ((1 + scaled / limit) / (1 + scaled))
    return (colors * factor).clamp(max=1).to(images.dtype)
