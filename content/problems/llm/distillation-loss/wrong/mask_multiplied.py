# expect: wrong answer: not finite
import torch
from torch.nn import functional as F


def distillation_loss(student, teacher, labels, temperature, alpha):
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ValueError("temperature or alpha")
    wide = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(wide), teacher.detach().to(wide)
    counts = (labels != -100).to(wide)
    hard = F.cross_entropy(student.mT, labels, reduction="none")
    log_q = F.log_softmax(student / temperature, -1)
    soft = F.kl_div(log_q, F.softmax(teacher / temperature, -1), reduction="none").sum(-1)
    each = alpha * hard + (1 - alpha) * temperature**2 * soft
    return (each * counts).sum() / counts.sum().clamp(min=1)
