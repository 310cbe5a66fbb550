"""Signature of orb-models 0.7."""

from stand_in import StandIn


class ORBCalculator(StandIn):
    """Models of molecules want charge and spin."""

    def __init__(self, model, atoms_adapter, *, device=None):
        assert atoms_adapter == "adapter"
        super().__init__(f"orb {' '.join(model)}", info=("charge", "spin") if "omol" in model[0] else (None, None))
