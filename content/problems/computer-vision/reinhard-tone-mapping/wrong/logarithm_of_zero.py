# expect: wrong answer: values | wrong answer: not finite
# Without delta one black pixel makes the average 0.
import torch


def tone_map(images, key=0.18, white=None):
    limit = float("inf") if white is None else white
    colors = images.float() if images.dtype == torch.float16 else images
    share = colors.new_tensor([0.2126, 0.7152, 0.0722]).reshape(3, 1, 1)
    luminance = (colors * share).sum(1, keepdim=True)
    average = luminance.log().mean(dim=(1, 2, 3), keepdim=True).exp()
    scale = key / average
    scaled = scale * luminance
    factor = scale * ((1 + scaled / limit**2) / (1 + scaled))
    return (colors * factor).clamp(max=1).to(images.dtype)
