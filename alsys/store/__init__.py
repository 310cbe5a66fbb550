"""The data: schema, the Zarr store and its in-memory twin."""
