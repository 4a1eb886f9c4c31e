"""What is minimised: supervised fine-tuning, preference optimisation."""
