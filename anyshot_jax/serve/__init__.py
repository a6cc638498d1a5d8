"""The local page of a classifier."""
