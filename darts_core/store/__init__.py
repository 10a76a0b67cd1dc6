"""The one store of `runs/`: jobs, versions, markers, locks, states, processes, code copies, deletion."""
