"""The ground floor: what every room uses and nothing of Etude is imported by."""
