"""Many trials of one recipe, and their leaderboard: python -m anyshot_jax.sweep."""
