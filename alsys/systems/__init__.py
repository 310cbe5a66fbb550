"""From what a user names (a file, a SMILES, a crystal, a box) to start frames."""
