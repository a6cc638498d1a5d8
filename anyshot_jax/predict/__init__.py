"""The command that classifies a folder of images, and all its work."""
