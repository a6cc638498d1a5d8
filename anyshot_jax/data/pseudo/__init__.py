"""Synthetic defects: shapes, textures, and how they are painted onto normal images."""
