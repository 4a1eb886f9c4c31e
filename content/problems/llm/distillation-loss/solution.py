import torch
from torch.nn import functional as F

IGNORED = -100


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    alpha: float,
) -> torch.Tensor:
    """Return the mean of α · cross-entropy + (1 − α) τ² KL(teacher ‖ student) as a scalar."""
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, not {alpha}")
    wide = torch.promote_types(student.dtype, torch.float32)
    # Chosen first, so that nothing of the other places is ever computed with.
    counts = labels != IGNORED
    student, teacher = student[counts].to(wide), teacher.detach()[counts].to(wide)
    hard = F.cross_entropy(student, labels[counts], reduction="sum")
    log_q = F.log_softmax(student / temperature, dim=-1)
    # A probability as the target, not its logarithm: only then 0 · log 0 is taken for 0.
    soft = F.kl_div(log_q, F.softmax(teacher / temperature, dim=-1), reduction="sum")
    return (alpha * hard + (1 - alpha) * temperature**2 * soft) / max(1, len(student))
