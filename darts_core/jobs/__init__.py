"""Jobs: a store of searches with versions, states, saved parameters, and the commands over it."""
