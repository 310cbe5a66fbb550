"""fairchem-core 2: a class method loads a model; charge and spin come from `Atoms.info`, as integers of Python."""
