"""Ray: actor shells, pool and placement. The only package that imports ray."""
