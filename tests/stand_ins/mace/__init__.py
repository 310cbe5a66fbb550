"""mace-torch 0.3: `mace_off` and its like are functions; charge and spin come from `Atoms.info`."""
