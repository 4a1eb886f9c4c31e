def drive(submission, losses, patience, min_delta):
    stopping = submission.EarlyStopping(patience, min_delta)
    told = [("at the beginning", stopping.best_epoch, stopping.best_loss)]
    for loss in losses:
        stop = stopping.step(loss)
        told.append((stop, stopping.best_epoch, stopping.best_loss))
    return told
