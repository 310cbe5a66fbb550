"""Walkers, integrators, selection of frames, and how a system is built."""
