"""Contract tests and fakes that others can use for their own labelers, potentials and stores."""
