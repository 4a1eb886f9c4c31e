# expect: runtime error
# bfloat16 times float32.
def lora_forward(x, weight, a, b, alpha):
    return x @ weight.T + (x @ a.T) @ b.T * (alpha / len(a))
