"""darts-core."""
