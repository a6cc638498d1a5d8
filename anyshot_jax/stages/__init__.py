"""Hand-over between the stages of a recipe: exports that a later stage reads."""
