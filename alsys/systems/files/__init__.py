"""Structure files: one reader for each format, none of which drops anything that a file says in silence."""
