"""The judge: hidden tests stay in a trusted process, submissions run in a sandbox."""
