"""The live page `darts-core web`: reads the store and the report's sections, starts commands as child
processes. Loads no torch.
"""
