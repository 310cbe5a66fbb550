"""aimnet 0.2: charge and multiplicity are arguments."""
