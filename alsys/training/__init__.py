"""Trainers: snapshots in, committees out."""
