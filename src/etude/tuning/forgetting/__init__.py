"""What fine-tuning cost a language model outside its task."""
