"""Signatures of mace-torch 0.3.16."""

from stand_in import StandIn


def mace_off(model=None, device="", default_dtype="float64", return_raw_model=False, **kwargs):
    """Neutral singlets."""
    return StandIn(f"mace_off {model} {default_dtype}")


def mace_omol(model=None, device="", default_dtype="float64", return_raw_model=False, **kwargs):
    """Charge and spin."""
    return StandIn(f"mace_omol {model} {default_dtype}", info=("charge", "spin"))


def mace_mp(model=None, device="", default_dtype="float32", dispersion=False, **kwargs):
    """Materials."""
    return StandIn(f"mace_mp {model} {default_dtype}")
