"""Trainable Linen nets of config.net: no losses, no config."""
