# expect: wrong answer: no exception
# Cuts off what does not fill a patch.
def patch_embedding(images, weight, bias):
    n, c, height, width = images.shape
    side = weight.shape[-1]
    h, w = height // side, width // side
    images = images[:, :, : h * side, : w * side]
    patches = images.reshape(n, c, h, side, w, side).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, h * w, c * side * side) @ weight.flatten(1).T + bias
