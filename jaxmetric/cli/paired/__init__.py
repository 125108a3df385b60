"""Runs of pairs: two inputs at once, each with its own encoder or one for both.

A `Task` is what is particular to a kind of pairs: how they are loaded, measured and
compared with a baseline. All else, the loop, the checkpoints and the log, is that of
the other runs.
"""
