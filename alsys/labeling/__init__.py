"""Labelers: energies and forces at a level of theory."""
