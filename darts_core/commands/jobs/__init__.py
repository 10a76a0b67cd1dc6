"""`darts-core jobs`: the verbs on jobs and their versions."""
