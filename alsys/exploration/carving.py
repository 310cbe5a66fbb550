"""Carves the neighbourhood of an atom out of a box or a large molecule, for labels that a whole frame is too large for.

What comes out is a molecule without a cell and a mask: forces are trusted in the central molecule, and near the centre
where that is asked for, nowhere else. Small molecules come whole, across periodic boundaries, as the images that are
nearest. Large ones and networks are cut at single bonds between carbon atoms, of which one at least has four
neighbours, outside of small rings, and capped with hydrogen at a scaled bond length (as link atoms: S. Dapprich et
al., J. Mol. Struct. THEOCHEM 461, 1 (1999)); a fragment grows until every bond that leaves it is such a bond. What
cannot be cut is refused in one line.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.exploration.bond_network import BondNetwork, Node
from alsys.frames import FloatArray, Frame, IntArray, PointCharges
from alsys.selection.strata import formula

CAP_SCALE = 1.09 / 1.53
"""Length of the bond to a cap over that of the bond it replaces: C-H over C-C."""
WHOLE = 60
"""Atoms up to which a molecule is not cut, unless told otherwise."""
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
MAX_ATOMS = 600
"""Atoms of the largest cluster, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Point charges in place of the molecules around a cluster.

    Attributes:
        charges: Charge of each element of a molecule by formula in Hill order, e, as ``{"H2O": {"O": -0.834, "H":
            0.417}}``; of every kind of molecule in the frame.
        reach: Whole molecules that come within this distance of the core are there, Angstrom.
    """

    charges: Mapping[str, Mapping[str, float]]
    reach: float


@dataclass(frozen=True, slots=True)
class Carved:
    """A cluster cut out of a frame.

    Attributes:
        frame: The cluster, without a cell; the central molecule first, where the frame has it. With an embedding, in
            the point charges of what is around it.
        mask: ``(n_atoms,)`` True where the surrounding is as large as asked for; never a cap or its neighbour.
        atoms: ``(n_atoms,)`` atom of the original frame, -1 for caps. Two images of one atom may both be there.
    """

    frame: Frame
    mask: NDArray[np.bool_]
    atoms: IntArray

    @property
    def n_caps(self) -> int:
        """Bonds that were cut."""
        return int((self.atoms < 0).sum())


@dataclass(frozen=True, slots=True)
class Convergence:
    """How forces at a centre settle while the cluster around it grows.

    Attributes:
        carved: The last cluster.
        radii: Radii that added atoms, Angstrom.
        n_atoms: Atoms of each cluster.
        changes: Largest change of the force on a trusted atom from the cluster before, eV/Angstrom; infinite for the
            first.
        is_converged: Whether the last change is within the tolerance.
    """

    carved: Carved
    radii: tuple[float, ...]
    n_atoms: tuple[int, ...]
    changes: tuple[float, ...]
    is_converged: bool

    @property
    def radius(self) -> float:
        """Radius of the last cluster, Angstrom."""
        return self.radii[-1]


def carve(
    frame: Frame,
    centre: int,
    radius: float,
    *,
    trusted: float = 0.0,
    whole: int = WHOLE,
    max_atoms: int = MAX_ATOMS,
    charges: Mapping[str, int] | None = None,
    embedding: Embedding | None = None,
) -> Carved:
    """The neighbourhood of one atom.

    The core is the molecule of the centre where that stays whole, else the centre and what is bonded to it. The cluster
    holds every molecule, and of large ones every atom, that comes within `radius` of the core, and as much more of
    large molecules as is needed to cut them well.

    Args:
        frame: Periodic or not.
        centre: An atom.
        radius: Angstrom from the atoms of the core.
        trusted: Besides the core, atoms this close to the centre are trusted too, Angstrom.
        whole: Atoms up to which a molecule is not cut.
        max_atoms: Of the cluster, caps included.
        charges: Charge of molecules by formula in Hill order (``{"Na": 1, "HO": -1}``); others are neutral. An element
            that is here on its own is an ion everywhere and forms no bonds.
        embedding: Point charges around the cluster; None leaves it in vacuum.

    Raises:
        InputError: In one line: charges that do not add up, an unpaired electron, no bond that may be cut, a molecule
            without point charges, or more atoms than allowed.
    """
    carver = Carver(frame, whole=whole, max_atoms=max_atoms, charges=charges, embedding=embedding)
    return carver.carve(centre, radius, trusted)


class Carver:
    """Carves several clusters out of one frame; bonds and molecules are found once. See `carve`.

    Raises:
        InputError: Charges of molecules that do not add up to that of the frame, or a frame that is no singlet.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        whole: int = WHOLE,
        max_atoms: int = MAX_ATOMS,
        charges: Mapping[str, int] | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        if frame.multiplicity != 1:
            raise InputError(
                "has unpaired electrons, which nothing assigns to one of its molecules",
                field="multiplicity",
                value=frame.multiplicity,
                remedy="carve singlets only",
            )
        self._frame, self._max_atoms = frame, max_atoms
        ions = [atomic_numbers[name] for name in charges or {} if name in atomic_numbers]
        self._network = network = BondNetwork(frame, ions)
        self._is_whole = [
            len(atoms) <= whole and not is_infinite
            for atoms, is_infinite in zip(network.members, network.is_infinite, strict=True)
        ]
        known, species = dict(charges or {}), [self._formula(k) for k in range(len(network.members))]
        self._charge = [known.get(name, 0) for name in species]
        for k, atoms in enumerate(network.members):
            numbers = frame.numbers[atoms]
            is_odd = int(numbers.sum()) % 2 or (len(atoms) == 1 and int(numbers[0]) not in NOBLE_GASES)
            if is_odd and not self._charge[k] and not network.is_infinite[k]:
                raise InputError(
                    "is no neutral molecule without unpaired electrons",
                    field="charges",
                    value=species[k],
                    remedy="give its charge by formula",
                )
        if sum(self._charge) != frame.charge:
            raise InputError(
                f"of the frame is not the sum over its molecules, {sum(self._charge):+d}",
                field="charge",
                value=frame.charge,
                remedy=f"give the charges of molecules by formula; there are {', '.join(sorted(set(species)))}",
            )
        self._embedding = embedding
        self._values = None if embedding is None else self._point_charges(embedding, species)

    def carve(self, centre: int, radius: float, trusted: float = 0.0) -> Carved:
        """The neighbourhood of one atom.

        Raises:
            InputError: As of the function `carve`.
        """
        origin: Node = (centre, (0, 0, 0))
        network = self._network
        core = network.molecule_around(origin) if self._stays_whole(centre) else [origin, *network.neighbours(origin)]
        near = network.within(core, radius)
        chosen: dict[Node, None] = dict.fromkeys(core)
        partial = {node for node in core if not self._stays_whole(node[0])}
        for node in near:
            if not self._stays_whole(node[0]):
                partial.add(node)
            elif node not in chosen:
                chosen.update(dict.fromkeys(network.molecule_around(node)))
                self._check_size(len(chosen), centre)
        cuts: list[tuple[Node, Node]] = []
        if partial:
            grown, cuts = self._grow(partial, self._max_atoms - len(chosen), centre)
            chosen.update(dict.fromkeys(sorted(grown, key=lambda node: (node not in partial, node))))
        self._check_size(len(chosen) + len(cuts), centre)
        return self._cluster(list(chosen), cuts, core, origin, trusted)

    def _point_charges(self, embedding: Embedding, species: Sequence[str]) -> FloatArray:
        """``(n_atoms,)`` the charge that stands for each atom outside of a cluster."""
        values = np.zeros(self._frame.n_atoms)
        symbols = [chemical_symbols[number] for number in self._frame.numbers.tolist()]
        for k, atoms in enumerate(self._network.members):
            name, known = species[k], embedding.charges.get(species[k])
            if known is None or any(symbols[atom] not in known for atom in atoms) or not self._is_whole[k]:
                raise InputError(
                    "has no point charges" if self._is_whole[k] else "is no molecule that stays whole",
                    field="embedding.charges",
                    value=name,
                    remedy="give a charge for each of its elements" if self._is_whole[k] else "leave embedding out",
                )
            values[atoms] = [known[symbols[atom]] for atom in atoms]
            if abs(float(values[atoms].sum()) - self._charge[k]) > 1e-6:
                raise InputError(
                    f"has point charges that add up to {values[atoms].sum():+.4f}, not {self._charge[k]:+d}",
                    field="embedding.charges",
                    value=name,
                    remedy="make them add up to the charge of the molecule",
                )
        return values

    def _environment(self, inside: Iterable[Node], core: Sequence[Node]) -> PointCharges | None:
        """Charges of the molecules, images included, that come within reach of the core and are not inside."""
        if self._embedding is None or self._values is None:
            return None
        taken = set(inside)
        outside: dict[Node, None] = {}
        for node in self._network.within(core, self._embedding.reach):
            if node not in taken and node not in outside:
                outside.update(dict.fromkeys(self._network.molecule_around(node)))
        values = self._values[[atom for atom, _ in outside]]
        keep = np.flatnonzero(values).tolist()
        nodes = list(outside)
        return PointCharges(self._network.positions([nodes[k] for k in keep]), values[keep]) if keep else None

    def _stays_whole(self, atom: int) -> bool:
        return self._is_whole[self._network.molecule[atom]]

    def _grow(self, start: Iterable[Node], room: int, centre: int) -> tuple[set[Node], list[tuple[Node, Node]]]:
        """The smallest set around `start` that only bonds leave which may be cut, and these bonds (inside, outside)."""
        inside = set(start)
        while True:
            leaving = [(a, b) for a in inside for b in self._network.neighbours(a) if b not in inside]
            ends = Counter(b for _, b in leaving)
            wanted = {b for a, b in leaving if ends[b] > 1 or not self._network.may_cut(a, b)}
            if not wanted:
                return inside, sorted(leaving)
            inside |= wanted
            if len(inside) > room:
                symbol = chemical_symbols[self._frame.numbers[centre]]
                raise InputError(
                    f"a cluster around atom {centre} ({symbol}) finds no bonds to cut within {self._max_atoms} atoms",
                    field="carve",
                    value=self._formula(self._network.molecule[centre]),
                    remedy="only acyclic single C-C bonds are cut; allow more atoms, or label whole frames",
                )

    def _cluster(
        self,
        nodes: list[Node],
        cuts: Sequence[tuple[Node, Node]],
        core: Sequence[Node],
        origin: Node,
        trusted: float,
    ) -> Carved:
        numbers, positions = self._frame.numbers[[atom for atom, _ in nodes]], self._network.positions(nodes)
        away = np.linalg.norm(positions - self._network.positions([origin]), axis=1)
        is_core, is_cut = set(core), {inside for inside, _ in cuts}
        mask = np.array([node in is_core for node in nodes]) | (away <= trusted)
        mask &= np.array([node not in is_cut for node in nodes])
        if cuts:
            inside = self._network.positions([a for a, _ in cuts])
            outside = self._network.positions([b for _, b in cuts])
            positions = np.concatenate([positions, inside + CAP_SCALE * (outside - inside)])
            numbers = np.concatenate([numbers, np.ones(len(cuts), dtype=np.int32)])
            mask = np.concatenate([mask, np.zeros(len(cuts), dtype=np.bool_)])
        charge = self._charge_of(nodes)
        electrons = int(numbers.sum()) - charge
        if electrons % 2:
            raise InputError(
                f"a cluster around atom {origin[0]} of charge {charge:+d} has {electrons} electrons, an odd number",
                field="charges",
                value=", ".join(sorted({self._formula(self._network.molecule[atom]) for atom, _ in nodes})),
                remedy="give the charges of ions by formula; parts of charged large molecules cannot be carved",
            )
        atoms = np.array([atom for atom, _ in nodes] + [-1] * len(cuts), dtype=np.int64)
        cluster = Frame.molecule(numbers, positions, charge=charge)
        environment = self._environment(nodes, core)
        return Carved(cluster if environment is None else replace(cluster, environment=environment), mask, atoms)

    def _formula(self, molecule: int) -> str:
        return formula(self._frame.numbers[self._network.members[molecule]])

    def _charge_of(self, nodes: Sequence[Node]) -> int:
        """Of whole molecules by their formula; a part of a large one has none."""
        total = 0
        counts = Counter(self._network.molecule[atom] for atom, _ in nodes)
        for molecule, count in counts.items():
            n_images, rest = divmod(count, len(self._network.members[molecule]))
            if self._charge[molecule] and (rest or not self._is_whole[molecule]):
                raise InputError(
                    "is charged and would be cut",
                    field="carve",
                    value=self._formula(molecule),
                    remedy="raise the number of atoms up to which molecules stay whole",
                )
            total += n_images * self._charge[molecule]
        return total

    def _check_size(self, n_atoms: int, centre: int) -> None:
        if n_atoms > self._max_atoms:
            raise InputError(
                f"a cluster around atom {centre} has more atoms than allowed",
                field="max_atoms",
                value=self._max_atoms,
                remedy="use a smaller radius, or allow more atoms",
            )


def converged_radius(
    frame: Frame,
    centre: int,
    evaluate: Callable[[Frame], FloatArray],
    tolerance: float,
    radii: Sequence[float],
    *,
    trusted: float = 0.0,
    whole: int = WHOLE,
    max_atoms: int = MAX_ATOMS,
    charges: Mapping[str, int] | None = None,
) -> Convergence:
    """Grows a cluster until the forces on trusted atoms change by no more than a tolerance.

    Radii that add no atom are left out. The cluster returned is the first whose trusted forces differ from those of the
    one before by at most the tolerance, or the largest.

    Args:
        frame: What is carved.
        centre: An atom.
        evaluate: ``(n_atoms, 3)`` forces of a cluster at a cheap level of theory, eV/Angstrom.
        tolerance: Largest change of the length of a force difference, eV/Angstrom.
        radii: Radii to try, rising, Angstrom.
        trusted: As of `carve`; so are the others.
        whole: Likewise.
        max_atoms: Likewise; the search ends, without convergence, at the last cluster that has room.
        charges: Likewise.

    Raises:
        InputError: No radius, or the first cluster cannot be carved.
    """
    if not len(radii) or any(b <= a for a, b in itertools.pairwise(radii)):
        raise InputError("must be given, in rising order", field="radii", value=list(radii))
    carver = Carver(frame, whole=whole, max_atoms=max_atoms, charges=charges)
    tried: list[tuple[float, int, float]] = []
    last: Carved | None = None
    forces: dict[bytes, FloatArray] = {}
    for radius in radii:
        try:
            carved = carver.carve(centre, radius, trusted)
        except InputError:
            if last is None:
                raise
            break
        if last is not None and carved.frame.n_atoms == last.frame.n_atoms:
            continue
        present = _trusted(carved, evaluate(carved.frame))
        both = [key for key in present if key in forces]
        change = max((float(np.linalg.norm(present[key] - forces[key])) for key in both), default=np.inf)
        tried.append((radius, carved.frame.n_atoms, change))
        last, forces = carved, present
        if change <= tolerance:
            break
    assert last is not None
    done_radii, n_atoms, changes = zip(*tried, strict=True)
    return Convergence(last, done_radii, n_atoms, changes, is_converged=changes[-1] <= tolerance)


def _trusted(carved: Carved, forces: FloatArray) -> dict[bytes, FloatArray]:
    """Forces on trusted atoms by their place, which is the same to the last bit in every cluster."""
    rows = np.flatnonzero(carved.mask).tolist()
    return {carved.frame.positions[k].tobytes(): np.asarray(forces[k], dtype=np.float64) for k in rows}
