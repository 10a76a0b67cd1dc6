"""The harness that turns cases into records: models against time, search steps, kernels, tabular lookups.

Each `what=` of `darts-core bench` is a file with `run(config, folder) -> result`; nothing is imported
until it is used.
"""
