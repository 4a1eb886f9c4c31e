# expect: wrong answer: values | wrong answer: not finite
import torch
from torch.nn import functional as F


def distillation_loss(student, teacher, labels, temperature, alpha):
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ValueError("temperature or alpha")
    wide = torch.promote_types(student.dtype, torch.float32)
    counts = labels != -100
    student, teacher = student[counts].to(wide), teacher.detach()[counts].to(wide)
    hard = F.cross_entropy(student, labels[counts])
    log_q = F.log_softmax(student / temperature, -1)
    soft = F.kl_div(log_q, F.softmax(teacher / temperature, -1), reduction="mean")
    return alpha * hard + (1 - alpha) * temperature**2 * soft
