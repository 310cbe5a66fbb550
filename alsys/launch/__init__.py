"""Launching a campaign on an engine that exists: what it asks machines for, the engine's files, its commands.

Files are written and commands run; nothing is scheduled here, and no cloud is talked to.
"""
