"""Trackers: callbacks that show a run's figures in another program, by `train.trackers`."""
