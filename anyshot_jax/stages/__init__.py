"""What one stage of a recipe exports and a later one reads."""
