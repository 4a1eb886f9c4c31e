# expect: runtime error | wrong answer: shape | wrong answer: values
# Written for a matrix x: columns are samples.
def lora_forward(x, weight, a, b, alpha):
    y = weight @ x.T + b.to(x.dtype) @ (a.to(x.dtype) @ x.T) * (alpha / len(a))
    return y.T
