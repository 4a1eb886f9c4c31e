import torch


def drive(submission, student, teacher, labels, temperature, alpha):
    # The same memory without the mark, so that the arguments themselves stay as they are.
    leaf, other = student.detach().requires_grad_(), teacher.detach().requires_grad_()
    loss = submission.distillation_loss(leaf, other, labels, temperature, alpha)
    gradients = [None, None]
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        gradients = torch.autograd.grad(loss.sum(), [leaf, other], allow_unused=True)
    return {
        "loss": loss,
        "gradient of the student": gradients[0],
        "gradient of the teacher": gradients[1],
    }
