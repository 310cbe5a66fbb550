"""Validation of a model by physics: what it says of scans, vibrations and dynamics, beside what its labels say.

A layer of its own above exploration, labeling and training, which it puts together. Each check is a function of plain
protocols (a `Committee`, a `Reference` that labels frames) and returns numbers; `alsys.validation.campaign` runs all
checks on a campaign's model and keeps the results.
"""
