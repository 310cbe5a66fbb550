"""Scripts that exports carry, each for one program; copied as they are."""
