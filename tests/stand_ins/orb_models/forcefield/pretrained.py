"""Signatures of orb-models 0.7."""


def orb_v3_conservative_omol(weights_path="", device=None, precision="float32-high", compile=None):
    """Molecules."""
    return ("orb_v3_conservative_omol", precision), "adapter"


def orb_v3_conservative_inf_omat(weights_path="", device=None, precision="float32-high", compile=None):
    """Materials."""
    return ("orb_v3_conservative_inf_omat", precision), "adapter"
