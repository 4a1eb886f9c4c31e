"""From a base model to a tuned one."""
