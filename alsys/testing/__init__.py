"""Contract tests and fakes that others can use for their own labelers and potentials."""
