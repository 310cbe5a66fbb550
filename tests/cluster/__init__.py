"""Clusters of several machines on this one."""
