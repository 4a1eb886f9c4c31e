"""What a model is measured by: how each figure is named and written, and how it is computed."""
