"""Why a torque gives an unconverged SCF away: a stationary density turns with the molecule, another one does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alsys.frames import Frame
from alsys.labeling.gate.balance import net_force, net_torque
from alsys.labels import Label
from alsys.units import HARTREE_PER_BOHR

METHANOL = Frame.molecule(
    [6, 8, 1, 1, 1, 1],
    [[-0.05, 0.66, 0.1], [-0.05, -0.78, 0], [-1.1, 0.97, 0], [0.88, -1.05, 0.2], [0.43, 1.1, 0.9], [0.43, 1.0, -0.85]],
)


@pytest.mark.dft
def test_forces_of_an_unconverged_scf_have_a_torque_but_no_net_force() -> None:
    from pyscf import gto, scf

    atoms = [(int(z), tuple(p)) for z, p in zip(METHANOL.numbers, METHANOL.positions, strict=True)]
    molecule = gto.M(atom=atoms, unit="Angstrom", basis="6-31g", verbose=0)
    torques = {}
    for cycles in (3, 100):
        field: Any = scf.RHF(molecule)
        field.max_cycle = cycles
        field.kernel()
        assert field.converged is (cycles == 100)
        forces = -np.asarray(field.nuc_grad_method().kernel()) * HARTREE_PER_BOHR
        label = Label(METHANOL.frame_id, "0" * 32, 0.0, forces)
        assert net_force(label) < 1e-6
        torques[cycles] = net_torque(METHANOL, label)
    assert torques[100] < 1e-3
    assert torques[3] > 20.0 * torques[100]
    assert torques[3] > 0.01
