"""A package of one's own that extends darts-core without touching it."""
