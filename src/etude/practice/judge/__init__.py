"""The judge: hidden tests stay in a trusted process, the submission runs in a sandbox of its own."""
