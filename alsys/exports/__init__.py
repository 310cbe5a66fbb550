"""Models for other programs: what is written, checked against its source, and measured on the random arm."""
