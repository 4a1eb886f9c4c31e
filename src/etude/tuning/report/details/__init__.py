"""Results of a task in the report: each name in details.json has a function that draws it."""
