"""Committees of potentials and their bundles on disk."""
