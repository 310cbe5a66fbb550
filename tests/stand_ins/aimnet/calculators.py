"""Signature of aimnet 0.2.6; `free_energy` is promised and not given, forces only where they are asked for."""

from stand_in import StandIn


class AIMNet2ASE(StandIn):
    """Only the model for open shells looks at the multiplicity."""

    def __init__(self, base_calc="aimnet2", charge=0, mult=1, validate_species=True):
        super().__init__(f"aimnet {base_calc}", (charge, mult if base_calc == "aimnet2nse" else 1))

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Nothing that is not asked for."""
        super().calculate(atoms, properties, system_changes)
        self.results = {name: value for name, value in self.results.items() if name in ("energy", *properties)}
