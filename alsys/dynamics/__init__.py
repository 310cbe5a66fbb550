"""Dynamics of batches of walkers, and whether their geometries make sense: what exploration and training share."""
