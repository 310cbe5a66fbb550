"""orb-models 0.6 and newer: a function loads model and adapter, a class uses them; both see charge and spin."""
