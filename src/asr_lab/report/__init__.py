"""The report of an experiment: collect (files -> values) -> stats (values -> intervals) -> render (intervals -> pages).

Reads files only: never a log, a network service or a checkpoint, and imports no torch. Entries: `collect.collect`,
`render.render` (the files) and `render.table` (the terminal).
"""
