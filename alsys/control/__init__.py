"""The ledger decides, the coordinator acts. Pure Python and asyncio: no ray, torch, pyscf, nequip, zarr or mlflow."""
