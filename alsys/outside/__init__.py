"""Files that others made, read with budgets: a file can be wrong in any way, and must never hang, fill or kill alsys.

`contents` reads text, JSON and YAML with limits of size, depth and number of nodes, in this process. `child` runs heavy
parsers (ASE, RDKit, h5py, lmdb, SQLite, NumPy) in a process with limits of memory and time that may open regular files
only, write none and run no code of a file. Whatever goes wrong is one `InputError`.
"""
