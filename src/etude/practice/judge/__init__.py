"""Judge of submissions: tests stay in a trusted process, submissions run in a sandbox."""
