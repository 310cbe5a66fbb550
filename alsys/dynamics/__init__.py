"""Dynamics of batches of walkers: integrators, thermostats, a barostat, one runner, and one rule that stops a walk."""
