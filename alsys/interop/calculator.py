"""An ASE calculator for committees, from whatever `alsys.interop.model_sources` knows."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from alsys.arguments import checked
from alsys.dynamics.surroundings import Surroundings
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.interop.keys import Meaning, meaning_of, select
from alsys.interop.model_sources import bundle_of
from alsys.interop.stated_electrons import check_possible, electrons_in, is_near_whole
from alsys.interop.trust import OnDistrust, Provenance, Trust, annotated, bound_of, check_apart
from alsys.outside.contents import read_json
from alsys.potentials.base import Committee, CommitteePrediction, FrameBatch, has_volume
from alsys.potentials.bundle import bundle_digest, read_bundle
from alsys.potentials.compile_cache import machine_tag
from alsys.potentials.factory import atomic_energies_of, build_committee, chosen, is_compiled
from alsys.potentials.scored import scored
from alsys.states import NEUTRAL_SINGLET, ElectronicState, SeenStates, multiplicity_of_spin

if TYPE_CHECKING:
    from alsys.potentials.atomic_energies import AtomicEnergies


class AlsysCalculator(Calculator):  # type: ignore[misc]
    """Mean energy, forces and stress of a committee, and the spread of energies and forces.

    Results (eV, eV/Angstrom): ``energy``, ``free_energy``, ``forces`` ``(n_atoms, 3)``, ``energy_std``,
    ``forces_std`` ``(n_atoms,)`` (force deviation of each atom) and ``max_force_deviation``; and ``stress`` ``(6,)``,
    eV/Angstrom^3, in ASE's order (xx, yy, zz, yz, xz, xy), tension positive, where the atoms are periodic in three
    directions and the model has a stress. Elsewhere asking for it raises ASE's ``PropertyNotImplementedError``.
    ``energies`` ``(n_atoms,)``, eV, are evaluated only when asked for (``atoms.get_potential_energies()``); models of
    a difference to a baseline have none (`alsys.potentials.atomic_energies`).

    ``atoms.info["charge"]`` and ``atoms.info["multiplicity"]`` (2S + 1) say how many electrons there are and how many
    are unpaired, under all names that an import knows (``total_charge``, ``uhf``, ``nelectrons``: see
    `alsys.interop.keys`); so do ``atoms.info["spin"]`` (2S + 1, 2S or S), the sum of initial charges and, of molecules,
    that of initial magnetic moments. What is not said is that of the only state which the model has learned of this
    composition or at all, or else that of neutral singlets. A state that the model has not learned, or that the
    electrons of a molecule cannot have, is refused; where nobody has recorded what it has learned, as in bundles from
    before there was a record, all but neutral singlets give a warning.

    Models whose errors were measured say how wrong forces may be: ``force_bound`` ``(n_atoms,)``, eV/Angstrom, below
    which the stated share of atoms stays (`alsys.potentials.force_bound`; 90 % where the campaign states none), and
    ``is_trusted``: whether no atom deviates more than those that this was measured on, and all are bonded to what
    atoms were that the model has learned from. `annotated` takes all of it along into files.

    Args:
        committee: The model.
        seen: The states that it has learned; None where that is not known.
        trust: What is known of its errors, and what to do beyond that.
        provenance: Which model it is; None for one without a name.
        atomic: Makes what evaluates energies of atoms, when they are first asked for; None where there are none.
        kwargs: ASE's.
    """

    name = "alsys"

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
        "energy_std",
        "forces_std",
        "max_force_deviation",
        "force_bound",
        "is_trusted",
    ]

    def __init__(
        self,
        committee: Committee,
        seen: SeenStates | None = None,
        *,
        trust: Trust | None = None,
        provenance: Provenance | None = None,
        atomic: Callable[[], AtomicEnergies] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.committee = committee
        self.seen = seen
        self.trust = trust or Trust()
        self.provenance = provenance
        self._make_atomic = atomic
        self._atomic: AtomicEnergies | None = None

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Which model this is: ``model``, ``version``, ``digest``, ``n_members``; empty for one without a name."""
        return {} if self.provenance is None else self.provenance.todict()

    def annotated(self, atoms: Atoms, *, has_arrays: bool = True) -> Atoms:
        """A copy of atoms with all results, evaluated where they are not there yet, and the model's name.

        What ASE has no name for goes to ``arrays`` (``forces_std``, ``force_bound``) and ``info``, which files keep.

        Args:
            atoms: Any that the model knows.
            has_arrays: The file takes arrays of its user, as extended XYZ does. ASE's trajectories do not: False puts
                them into ``info`` too.
        """
        self.get_property("energy", atoms)
        return annotated(atoms, self.results, self.provenance, has_arrays=has_arrays)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation: as of ASE, and charge and multiplicity in ``atoms.info``."""
        changes: list[str] = super().check_state(atoms, tol)
        if self.atoms is not None and _said(atoms) != _said(self.atoms):
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluates all members once.

        Raises:
            InputError: An element that the model does not know, positions that are not finite, atoms on top of each
                other, a charge or multiplicity that the model has not learned or that contradicts itself, or a
                structure that the model's baseline cannot treat.
            UntrustedFrame: The frame is not trusted and `trust` says so; results are there all the same.
            ase.calculators.calculator.CalculationFailed: The model's baseline did not converge.
            ase.calculators.calculator.PropertyNotImplementedError: The stress is asked for, and there is none; energy
                and forces are among the results all the same.
        """
        super().calculate(atoms, properties, system_changes)
        state = self._state(self.atoms)
        frame = Frame(
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            cell=self.atoms.cell.array,
            pbc=self.atoms.pbc,
            charge=state.charge,
            multiplicity=state.multiplicity,
        )
        surroundings = Surroundings.of(frame)
        check_apart(surroundings)
        batch = FrameBatch.of([frame])
        prediction = self.committee.evaluate(batch)
        if prediction.is_failed is not None:
            raise CalculationFailed("the baseline of the model failed on this structure: no energy, no forces")
        judged, why = self.trust.judge(surroundings, prediction.force_deviation)
        self.results = {
            "energy": float(prediction.energy[0]),
            "free_energy": float(prediction.energy[0]),
            "forces": prediction.forces,
            "energy_std": float(prediction.energy_std[0]),
            "forces_std": prediction.force_deviation,
            "max_force_deviation": float(prediction.frame_deviation[0]),
            **judged,
        }
        reason = _why_no_stress(batch, prediction)
        if not reason:
            assert prediction.stress is not None
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0])
        elif "stress" in (properties or []):
            raise PropertyNotImplementedError(f"no stress: {reason}")
        if "energies" in (properties or []):
            self.results["energies"] = self._energies(batch)
        self.trust.act(why)

    def _energies(self, batch: FrameBatch) -> FloatArray:
        if self._make_atomic is None:
            raise PropertyNotImplementedError("no energies of atoms: the model is a difference to a baseline")
        self._atomic = self._atomic or self._make_atomic()
        return self._atomic.evaluate(batch)

    def _state(self, atoms: Atoms) -> ElectronicState:
        """What to evaluate the model for.

        Raises:
            InputError: It contradicts itself, or the model has not learned it.
        """
        charge, multiplicity = _said(atoms)
        if self.seen is not None:
            state = self.seen.complete(atoms.numbers, charge, multiplicity)
            self.seen.check(atoms.numbers, state)
            check_possible(atoms.numbers, state, self.seen, "atoms.info", is_periodic=atoms.pbc.any())
            return state
        state = ElectronicState(charge or 0, multiplicity or 1)
        check_possible(atoms.numbers, state, None, "atoms.info", is_periodic=atoms.pbc.any())
        if state != NEUTRAL_SINGLET:
            warnings.warn(
                f"{state}: nobody has recorded which charges and multiplicities this model has learned; it may not see "
                "them at all",
                stacklevel=2,
            )
        return state


def _why_no_stress(batch: FrameBatch, prediction: CommitteePrediction) -> str:
    """What a frame lacks to have a stress; empty where it has one."""
    if not batch.pbc.all():
        return "the atoms are not periodic in three directions"
    if not has_volume(batch).all():
        return "the cell has no volume"
    if prediction.stress is None:
        return "this kind of model predicts none"
    if not np.isfinite(prediction.stress).all():
        return "the model, or the baseline that it is a difference to, gives none for these atoms"
    return ""


def _said(atoms: Atoms) -> tuple[int | None, int | None]:
    """Charge and multiplicity as far as the atoms say them."""
    charge = _charge(atoms)
    return charge, _multiplicity(atoms, 0 if charge is None else charge)


def _stated(atoms: Atoms) -> tuple[dict[str, int], dict[str, int]]:
    """Charges and multiplicities of ``atoms.info``, by name."""
    info = {name: value for name, value in atoms.info.items() if isinstance(name, str)}
    return electrons_in(select(tuple(info), ()), info, atoms.numbers, "atoms.info")


def _charge(atoms: Atoms) -> int | None:
    said, _ = _stated(atoms)
    if len(set(said.values())) > 1:
        raise InputError(
            f"{' and '.join(said)} contradict each other", field="atoms.info", value=tuple(said.values()),
            remedy="correct one of them",
        )  # fmt: skip
    name, given = next(iter(said.items()), ("charge", None))
    total = float(np.sum(atoms.get_initial_charges()))
    if not is_near_whole(total):
        raise InputError(
            "do not sum to a whole number", field="initial charges", value=round(total, 4),
            remedy="set charges that do, or none, and atoms.info['charge']",
        )  # fmt: skip
    summed = round(total)
    if summed and given not in (None, summed):
        raise InputError(
            f"is not the sum of the initial charges, {summed:+d}", field=f"atoms.info[{name!r}]", value=given,
            remedy="correct one of them",
        )  # fmt: skip
    return summed or None if given is None else given


def _multiplicity(atoms: Atoms, charge: int) -> int | None:
    _, stated = _stated(atoms)
    for name, given in stated.items():
        if given < 1:
            raise InputError("is 2S + 1, at least 1", field=f"atoms.info[{name!r}]", value=given)
    said = list(stated.values())
    spins = [name for name in atoms.info if isinstance(name, str) and meaning_of(name)[0] is Meaning.SPIN]
    for name in spins:
        if (spin := atoms.info[name]) is None:
            continue
        n_electrons = int(atoms.numbers.sum()) - charge
        try:
            meant = multiplicity_of_spin(float(spin), n_electrons)
        except (TypeError, ValueError):
            meant = None
        if meant is None:
            raise InputError(
                f"is no spin of {n_electrons} electrons", field=f"atoms.info[{name!r}]", value=spin,
                remedy="give atoms.info['multiplicity'], 2S + 1",
            )  # fmt: skip
        said.append(meant)
    if not atoms.pbc.any() and (unpaired := _sum(atoms.get_initial_magnetic_moments())):
        said.append(abs(unpaired) + 1)
    if len(set(said)) > 1:
        raise InputError(
            "contradicts spin, unpaired electrons or initial magnetic moments", field="atoms.info['multiplicity']",
            value=said, remedy="correct one of them",
        )  # fmt: skip
    return said[0] if said else None


def _sum(values: FloatArray) -> int:
    """Of numbers of atoms that add up to an integer; 0 where they do not, as those of a crude guess."""
    total = float(values.sum()) if values.ndim == 1 else 0.0
    return round(total) if abs(total - round(total)) < 1e-3 else 0


@checked
def load_calculator(
    uri: str | Path,
    *,
    tracking_uri: str | None = None,
    threads: int = 1,
    device: str = "auto",
    dtype: Literal["float32", "float64"] | None = None,
    compile: bool | Literal["auto"] = "auto",
    members: int | Literal["all"] = "all",
    on_distrust: OnDistrust = "ignore",
    cache: bool | str | Path = True,
) -> AlsysCalculator:
    """An ASE calculator from a bundle folder, a campaign or a registered model.

    Args:
        uri: A bundle folder, that of a campaign, whose champion is taken, or its mirror (``s3://BUCKET/PREFIX``),
            ``models:/NAME@champion`` or ``models:/NAME/VERSION``.
        tracking_uri: MLflow server; default ``MLFLOW_TRACKING_URI``, or ``sqlite:///mlflow.db`` in the working folder.
        threads: Threads of torch.
        device: Where networks are evaluated: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one.
        dtype: Of networks; None for that of the fit.
        compile: Of networks. True compiles them (most of a minute, once for an architecture; kept in the user's cache
            folder), ``auto`` uses what was compiled before, by a campaign or a calculator.
        members: Evaluate so many, the first ones. One alone has no deviations, and fewer than all no bound.
        on_distrust: What happens with a frame that is not trusted: nothing (``is_trusted`` says it), a warning, or
            `UntrustedFrame`.
        cache: Where compiled networks are kept: True for the user's cache folder; a folder, which may go along with a
            project and have packages for several kinds of machine; False for nowhere. Packages are programs that are
            run: a folder of somebody else's is theirs.

    Raises:
        InputError: Nothing is there, it is damaged, there is no such device, or nothing is known of the model's errors
            and `on_distrust` is to say something.
        EnvironmentProblem: The MLflow server does not answer, or the package of the model's baseline is missing.
    """
    _check_choice("on_distrust", on_distrust, get_args(OnDistrust))
    _check_choice("compile", compile, (True, False, "auto"))
    with bundle_of(uri, tracking_uri=tracking_uri) as path:
        whole, digest = read_bundle(path), bundle_digest(path)
        card = read_json(path / "card.json")
    state = chosen(whole, members, dtype)
    is_whole = state.n_members == whole.n_members
    bound = bound_of(whole, card) if is_whole else None
    if bound is None and on_distrust != "ignore":
        why = (
            "nobody has measured its errors on a random arm of 8 frames" if is_whole else "they are of all its members"
        )
        raise InputError(
            f"no bounds on errors go with this model: {why}", source=str(uri), field="on_distrust", value=on_distrust,
            remedy="leave it out" if is_whole else "leave out members",
        )  # fmt: skip
    with _packages(cache) as packages:
        how = is_compiled(state, compile, threads, device, packages)
        committee = build_committee(state, threads, is_compiled=how, device=device, packages=packages)
    return AlsysCalculator(
        scored(committee, state),
        state.seen,
        trust=Trust(bound, whole.surroundings or frozenset(), on_distrust),
        provenance=Provenance(str(uri), state.version, digest, state.n_members),
        atomic=None if state.baseline is not None else lambda: atomic_energies_of(state, threads, device),
    )


@contextlib.contextmanager
def _packages(cache: bool | str | Path) -> Iterator[Path | None]:
    """Folder of compiled packages, which are read when a committee is built; None for the user's own."""
    if cache is True:
        yield None
    elif cache is False:
        with tempfile.TemporaryDirectory(prefix="alsys-") as scratch:
            yield Path(scratch)
    else:
        folder = Path(cache) / machine_tag()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot be made: {error.strerror}", field="cache", value=str(cache), remedy="name a folder to write to"
            ) from error
        yield folder


def _check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    if not any(type(value) is type(one) and value == one for one in choices):
        raise InputError("is no choice", field=field, value=value, remedy=f"one of {', '.join(map(str, choices))}")
