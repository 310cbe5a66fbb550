"""Signature of fairchem-core 2.24."""

from stand_in import StandIn


class FAIRChemCalculator(StandIn):
    """Looks at charge and spin where the task is `omol`."""

    @classmethod
    def from_model_checkpoint(cls, name_or_path, task_name=None, inference_settings="default", device=None, seed=41):
        """A calculator with weights."""
        return cls(f"uma {name_or_path} {task_name}", info=("charge", "spin") if task_name == "omol" else (None, None))

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Particular about types."""
        assert all(type(value) is int for value in atoms.info.values())
        super().calculate(atoms, properties, system_changes)
