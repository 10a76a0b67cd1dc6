"""One file per pipeline stage: a configuration in, a run folder out."""
