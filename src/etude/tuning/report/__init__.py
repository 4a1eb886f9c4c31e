"""What a run looks like to a person: the terminal view and the report page."""
