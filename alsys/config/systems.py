"""The systems of a campaign file: molecules, structure files, crystals, boxes and clusters.

All fields are science: they decide what is explored. Units are Angstrom, degrees, e, g/cm3 and mol/L. Nothing is built
here; see `alsys.systems.builders`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alsys.config.section import Name, Section, operational

Ignorable = Literal["charge", "multiplicity", "fixed-atoms", "occupancy", "hydrogens", "symmetry", "units"]
"""What a structure file may say in vain."""
_IGNORE = (
    "For `file` (`multiplicity` also for `smiles`): what it says and is left out instead of refused: `charge` and "
    "`multiplicity` where they are wrong, `fixed-atoms` (constraints, selective dynamics), `occupancy` (partly "
    "occupied sites), `hydrogens` (named and without coordinates), `symmetry` (of a cell that is not filled), `units` "
    "(Bohr)."
)


def _ignored() -> tuple[Ignorable, ...]:
    field: tuple[Ignorable, ...] = operational((), description=_IGNORE)
    return field


class Component(Section):
    """One kind of molecule in a box or cluster. Exactly one of `smiles`, `file`, `molecule` says what it is."""

    smiles: str | None = Field(None, description="SMILES; 3D structure from RDKit.")
    file: str | None = Field(None, description="Structure file of one molecule, relative to the config.")
    molecule: str | None = Field(None, description="Name in ASE's g2 collection, for example `H2O`.")
    index: int = Field(0, ge=-1, description="For `file`: which of its frames; -1 is the last.")
    charge: int = Field(0, ge=-20, le=20, description="Of one molecule, e.")
    ignore: tuple[Ignorable, ...] = _ignored()
    count: int | None = Field(None, ge=1, le=10_000, description="Molecules of this kind.")
    concentration: float | None = Field(None, gt=0, le=200, description="Instead of a count, mol/L.")

    @model_validator(mode="after")
    def _one_origin(self) -> Component:
        _only(self, ("smiles", "file", "molecule"))
        _belongs(self, "index", "file")
        _belongs(self, "ignore", "file")
        if self.count is not None and self.concentration is not None:
            raise ValueError("give one of count and concentration, not both")
        return self

    @property
    def origin(self) -> str:
        """What it is, in words."""
        name = self.smiles or self.molecule or str(self.file)
        if self.count is not None:
            return f"{self.count} {name}"
        return f"{self.concentration:g} mol/L {name}" if self.concentration is not None else name


class PackedConfig(Section):
    """Molecules packed at random with packmol, 2 Angstrom apart at least.

    One component may do without count and concentration: it fills the volume up to the density.
    """

    components: tuple[Component, ...] = Field(min_length=1, description="What is in it.")
    density: float | None = Field(None, gt=0, le=25, description="Mass density, g/cm3.")
    packings: int = Field(1, ge=1, le=100, description="Start structures, packed with different seeds.")

    def _check_size(self, field: str) -> None:
        """Refuses sizes that are given twice or not at all; `field` is the one that gives the size directly."""
        has_size, has_density = getattr(self, field) is not None, self.density is not None
        unknown = [i for i, c in enumerate(self.components) if c.count is None and c.concentration is None]
        if len(unknown) > 1:
            raise ValueError(f"components[{unknown[1]}] needs a count or a concentration; only one may fill up")
        if unknown and not (has_size and has_density):
            raise ValueError(
                f"components[{unknown[0]}] fills up the volume: give both {field} and density, or its count"
            )
        if not unknown and has_size == has_density:
            raise ValueError(f"give exactly one of {field}, density")
        if not has_size and all(c.count is None for c in self.components):
            raise ValueError(f"concentrations alone give no size: give {field} instead of density, or a count")


class BoxConfig(PackedConfig):
    """A cubic periodic box: a liquid, a mixture, or a solute in its solvent."""

    edge: float | None = Field(None, gt=0, le=1000, description="Edge of the cube, Angstrom.")

    @model_validator(mode="after")
    def _one_size(self) -> BoxConfig:
        self._check_size("edge")
        return self


class ClusterConfig(PackedConfig):
    """Molecules inside a sphere, without periodic boundaries."""

    radius: float | None = Field(None, gt=0, le=500, description="Of the sphere that holds all atoms, Angstrom.")

    @model_validator(mode="after")
    def _one_size(self) -> ClusterConfig:
        self._check_size("radius")
        return self


class BulkConfig(Section):
    """A crystal from `ase.build.bulk`."""

    formula: str = Field(description="For example `Cu` or `NaCl`.")
    structure: (
        Literal[
            "sc", "fcc", "bcc", "bct", "hcp", "tetragonal", "orthorhombic", "rhombohedral", "diamond", "zincblende",
            "rocksalt", "cesiumchloride", "fluorite", "wurtzite",
        ]
        | None
    ) = Field(None, description="Crystal structure; default is the element's own.")  # fmt: skip
    a: float | None = Field(None, gt=0, le=100, description="Lattice constant, Angstrom; default is the element's.")
    b: float | None = Field(None, gt=0, le=100, description="Lattice constant of orthorhombic crystals.")
    c: float | None = Field(None, gt=0, le=100, description="Lattice constant of hexagonal crystals and the like.")
    covera: float | None = Field(None, gt=0, le=10, description="Instead of c, the ratio c/a.")
    u: float | None = Field(None, gt=0, lt=1, description="Internal coordinate of wurtzite.")
    alpha: float | None = Field(None, gt=0, lt=180, description="Angle of rhombohedral crystals, degrees.")
    cubic: bool = Field(False, description="The cubic cell instead of the primitive one.")
    orthorhombic: bool = Field(False, description="The orthorhombic cell instead of the primitive one.")
    repeat: tuple[
        Annotated[int, Field(ge=1, le=50)], Annotated[int, Field(ge=1, le=50)], Annotated[int, Field(ge=1, le=50)]
    ] = Field((1, 1, 1), description="Cells along each lattice vector.")


ORIGINS = ("smiles", "file", "molecule", "bulk", "box", "cluster")
"""Fields of a system, of which exactly one says what it is."""


class SystemConfig(Section):
    """One system to explore. Exactly one of `ORIGINS` says what it is."""

    name: Name = Field(
        description="Name of the system in the store and in reports; default: the campaign's, numbered if several."
    )
    smiles: str | None = Field(None, description="SMILES; 3D structure from RDKit.")
    file: str | None = Field(
        None, description="Structure file (xyz, extxyz, pdb, cif, traj, ...), relative to the config."
    )
    molecule: str | None = Field(None, description="Name in ASE's g2 collection, for example `CH3OH`.")
    bulk: BulkConfig | None = Field(None, description="A crystal.")
    box: BoxConfig | None = Field(None, description="A periodic box of packed molecules.")
    cluster: ClusterConfig | None = Field(None, description="A sphere of packed molecules.")
    index: int = Field(0, ge=-1, description="For `file`: which of its frames; -1 is the last.")
    conformers: int = Field(
        10,
        ge=1,
        le=200,
        description="For `smiles`: start structures at most (RDKit's ETKDG and MMFF, lowest energy first, different by "
        "RMSD, of one stereoisomer); fewer where the molecule has fewer.",
    )
    charge: int = Field(
        0, ge=-20, le=20, description="Total charge, e; of a box or cluster the sum over its molecules."
    )
    multiplicity: int = Field(1, ge=1, le=20, description="2S + 1.")
    ignore: tuple[Ignorable, ...] = _ignored()
    check: bool = operational(
        True,
        description="Whether its start structures are asked if they are some before anything starts: contacts, "
        "neighbours of carbon, largest force and energy against free atoms with xTB. False for what looks like "
        "a mistake and is meant.",
    )
    share: float = Field(
        1.0, gt=0, le=1e6, description="Weight of the system when walkers and first frames are shared out."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> SystemConfig:
        _only(self, ORIGINS)
        _belongs(self, "index", "file")
        if self.smiles is None:
            _belongs(self, "ignore", "file")
        _belongs(self, "conformers", "smiles")
        return self

    @property
    def origin(self) -> str:
        """What the system is, in words."""
        if self.bulk is not None:
            return f"{self.bulk.structure or ''} {self.bulk.formula}".strip()
        packed, shape = (self.box, "box") if self.box is not None else (self.cluster, "cluster")
        if packed is not None:
            return f"{shape} of {' + '.join(component.origin for component in packed.components)}"
        return self.smiles or self.molecule or str(self.file).rpartition("/")[2]


def _only(section: Section, fields: tuple[str, ...]) -> None:
    if sum(getattr(section, field) is not None for field in fields) != 1:
        raise ValueError(f"give exactly one of {', '.join(fields)}")


def _belongs(section: Section, field: str, to: str) -> None:
    value = getattr(section, field)
    if value != type(section).model_fields[field].default and getattr(section, to) is None:
        raise ValueError(f"{field} is for {to} (got {value}); remove it")
