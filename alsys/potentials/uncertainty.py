"""Raw scores of how little a committee knows of each atom: larger is less certain.

Three ways behind one protocol: how far members' forces are apart, how little training data constrain the last layer in
the direction of an atom's features (LLPR), and how far these features are from those trained on. The last two need one
member only, and nothing but its features. Scores have a unit of their own each; they become force errors by
calibration, elsewhere. Features of another model version mean something else: fit again after each new version.
States are plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.potentials.base import CommitteePrediction, FrameBatch

RIDGE = 1e-6
"""Penalty over the mean eigenvalue. Float32 features (rounding 1e-7) then change a score by less than a thousandth of
what a feature of usual size in a direction never trained on gives."""
WHITENING_RIDGE = 1e-3
"""Smallest variance that is whitened, over the mean variance: directions in which features hardly vary are noise."""
Numbers = NDArray[np.int32]


class AtomUncertainty(Protocol):
    """Scores atoms."""

    name: ClassVar[str]

    def fit(self, features: FloatArray, numbers: Numbers) -> None:
        """Forgets what it learned, and learns from ``(n, n_features)`` atoms trained on of atomic `numbers`."""
        ...

    def update(self, features: FloatArray, numbers: Numbers) -> None:
        """Learns from more atoms of the same model version."""
        ...

    def atom(self, prediction: CommitteePrediction, batch: FrameBatch, arrays: Arrays = HOST) -> Array:
        """``(n_total,)`` score of each atom; infinite for an element that was never trained on.

        Args:
            prediction: Of the committee.
            batch: What it is of.
            arrays: Where the prediction is.

        Raises:
            InputError: The prediction lacks what the score is made of.
        """
        ...

    def energy(self, prediction: CommitteePrediction, batch: FrameBatch) -> FloatArray | None:
        """``(n_frames,)`` score of each frame's energy; None where that has no meaning."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything it learned."""
        ...

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The one with this `state`."""
        ...


class CommitteeUncertainty:
    """How far members' forces are apart, eV/Angstrom. NaN where one member of several was evaluated."""

    name: ClassVar[str] = "committee"

    def fit(self, features: FloatArray, numbers: Numbers) -> None:
        """Nothing to learn: the spread comes with each prediction."""

    def update(self, features: FloatArray, numbers: Numbers) -> None:
        """Nothing to learn."""

    def atom(self, prediction: CommitteePrediction, batch: FrameBatch, arrays: Arrays = HOST) -> Array:
        """``(n_total,)`` force deviation, eV/Angstrom."""
        return prediction.force_deviation

    def energy(self, prediction: CommitteePrediction, batch: FrameBatch) -> Array:
        """``(n_frames,)`` standard deviation over members, eV."""
        return prediction.energy_std

    def state(self) -> dict[str, NDArray[Any]]:
        """Nothing."""
        return {}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Any state will do."""
        return cls()


class LastLayerUncertainty:
    """Inverse last-layer prediction rigidity: ``sqrt(f^T (F^T F + lambda I)^-1 f)``.

    F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, doi:10.1088/2632-2153/ad805f (2024), arXiv:2403.02251, without the
    factor that calibration sets. It is the standard deviation of a Bayesian linear regression on features ``f``. Rows
    of ``F`` are training atoms, as if atomic energies had been labels: the paper's are frames' sums, which say less of
    each environment. ``lambda = RIDGE tr(F^T F) / n_features``.

    Args:
        is_per_element: Each element has weights, so a matrix, of its own; otherwise all share one.
    """

    name: ClassVar[str] = "last-layer"

    def __init__(self, *, is_per_element: bool = True) -> None:
        self._is_per_element = is_per_element
        self._products: dict[int, FloatArray] = {}
        self._counts: dict[int, int] = {}
        self._inverse_roots: dict[int, FloatArray] = {}
        self._placed = _Placed()

    def fit(self, features: FloatArray, numbers: Numbers) -> None:
        """Forgets all atoms, and adds these."""
        self._products, self._counts = {}, {}
        self.update(features, numbers)

    def update(self, features: FloatArray, numbers: Numbers) -> None:
        """Adds atoms to ``F^T F``."""
        _check(features, numbers)
        for key, rows in self._groups(numbers).items():
            chosen = np.asarray(features[rows], dtype=np.float64)
            self._products[key] = self._products.get(key, 0.0) + chosen.T @ chosen
            self._counts[key] = self._counts.get(key, 0) + len(chosen)
        self._factorise()

    def atom(self, prediction: CommitteePrediction, batch: FrameBatch, arrays: Arrays = HOST) -> Array:
        """``(n_total,)``, no unit.

        Raises:
            InputError: The committee gives no features, or others than those fitted.
        """
        features, xp = _features(prediction), arrays.xp
        scores = xp.full_like(features[:, 0], float("inf"))
        for rows, root in self._placed.of(arrays, batch.numbers, lambda: self._roots(batch.numbers, features)):
            whitened = features[rows] @ root
            scores[rows] = xp.sqrt(xp.einsum("af,af->a", whitened, whitened))
        return scores

    def _roots(self, numbers: Numbers, features: Array) -> list[list[NDArray[Any]]]:
        groups = _rows_by_element(numbers) if self._is_per_element else {0: np.arange(len(numbers))}
        return [[rows, self._root(key, features)] for key, rows in groups.items() if key in self._inverse_roots]

    def energy(self, prediction: CommitteePrediction, batch: FrameBatch) -> FloatArray:
        """``(n_frames,)`` of the sum of each frame's features, no unit.

        Raises:
            InputError: As of `atom`.
        """
        features = _features(prediction)
        squared = np.zeros(batch.n_frames)
        frames = batch.frame_of_atom
        for key, rows in self._groups(batch.numbers).items():
            sums = np.zeros((batch.n_frames, features.shape[1]))
            np.add.at(sums, frames[rows], features[rows])
            if key in self._inverse_roots:
                squared += np.square(sums @ self._root(key, features)).sum(axis=1)
            else:
                squared[np.unique(frames[rows])] = np.inf
        root: FloatArray = np.sqrt(squared)
        return root

    def state(self) -> dict[str, NDArray[Any]]:
        """Sums of products, and how many atoms are in them."""
        keys = sorted(self._products)
        return {
            "is_per_element": np.array(self._is_per_element),
            "elements": np.array(keys, dtype=np.int64),
            "counts": np.array([self._counts[key] for key in keys], dtype=np.int64),
            "products": np.stack([self._products[key] for key in keys]) if keys else np.zeros((0, 0, 0)),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The one with these sums."""
        made = cls(is_per_element=bool(state["is_per_element"]))
        for key, count, products in zip(state["elements"], state["counts"], state["products"], strict=True):
            made._products[int(key)] = np.array(products, dtype=np.float64)
            made._counts[int(key)] = int(count)
        made._factorise()
        return made

    def _groups(self, numbers: Numbers) -> dict[int, Any]:
        """Rows of each matrix: by atomic number, or all under 0."""
        return _rows_by_element(numbers) if self._is_per_element else {0: slice(None)}

    def _root(self, key: int, features: FloatArray) -> FloatArray:
        root = self._inverse_roots[key]
        if len(root) != features.shape[1]:
            raise InputError(f"fitted to {len(root)} features", field="features", value=features.shape[1])
        return root

    def _factorise(self) -> None:
        """``R`` with ``R R^T = (F^T F + lambda I)^-1``; of eigenvectors, because ``F^T F`` is close to singular."""
        self._inverse_roots, self._placed = {}, _Placed()
        for key, products in self._products.items():
            values, vectors = np.linalg.eigh(products)
            penalty = RIDGE * float(np.trace(products)) / len(products)
            if penalty > 0.0:  # else there is nothing but zeros: any feature is new
                self._inverse_roots[key] = vectors / np.sqrt(np.maximum(values, 0.0) + penalty)


class LatentDistance:
    """Distance to the nearest atom of the same element trained on, in units of the features' spread.

    J. P. Janet, C. Duan, T. Yang, A. Nandy, H. J. Kulik, Chem. Sci. 10, 7913 (2019). Features of each element are
    whitened: rotated and scaled to unit variance, where the variance is at least `WHITENING_RIDGE` of the mean. Of the
    atoms trained on, farthest points are kept (T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985)), so that no other is
    farther from a kept one than twice what is possible with so many.

    Args:
        n_stored: Atoms kept of each element.
    """

    name: ClassVar[str] = "latent-distance"

    def __init__(self, n_stored: int = 256) -> None:
        if n_stored < 1:
            raise InputError("must be at least 1", field="n_stored", value=n_stored)
        self._n_stored = n_stored
        self._whitening: dict[int, FloatArray] = {}
        self._stored: dict[int, FloatArray] = {}
        self._placed = _Placed()

    def fit(self, features: FloatArray, numbers: Numbers) -> None:
        """Whitens these atoms, and keeps the farthest points."""
        _check(features, numbers)
        self._whitening, self._stored = {}, {}
        self.update(features, numbers)

    def update(self, features: FloatArray, numbers: Numbers) -> None:
        """Keeps the farthest points of those kept and these; whitening stays as fitted."""
        _check(features, numbers)
        self._placed = _Placed()
        for key, rows in _rows_by_element(numbers).items():
            chosen = np.asarray(features[rows], dtype=np.float64)
            if key not in self._whitening:
                self._whitening[key] = _whitening(chosen)
            points = chosen @ self._whitening[key]
            if key in self._stored:
                points = np.concatenate([self._stored[key], points])
            self._stored[key] = points[farthest_points(points, self._n_stored)]

    def atom(self, prediction: CommitteePrediction, batch: FrameBatch, arrays: Arrays = HOST) -> Array:
        """``(n_total,)``, no unit.

        Raises:
            InputError: The committee gives no features, or others than those fitted.
        """
        features, xp = _features(prediction), arrays.xp
        scores = xp.full_like(features[:, 0], float("inf"))
        kept = self._placed.of(arrays, batch.numbers, lambda: self._points(batch.numbers, features))
        for rows, whitening, stored in kept:
            points = features[rows] @ whitening
            nearest = (xp.square(stored).sum(axis=1) - 2.0 * points @ stored.T).argmin(axis=1)
            scores[rows] = xp.linalg.norm(points - stored[nearest], axis=1)  # not from the product: that cancels
        return scores

    def _points(self, numbers: Numbers, features: Array) -> list[list[NDArray[Any]]]:
        found: list[list[NDArray[Any]]] = []
        for key, rows in _rows_by_element(numbers).items():
            if key not in self._stored:
                continue
            if len(self._whitening[key]) != features.shape[1]:
                raise InputError(
                    f"fitted to {len(self._whitening[key])} features", field="features", value=features.shape[1]
                )
            found.append([rows, self._whitening[key], self._stored[key]])
        return found

    def energy(self, prediction: CommitteePrediction, batch: FrameBatch) -> None:
        """A distance says nothing of an energy."""
        return

    def state(self) -> dict[str, NDArray[Any]]:
        """Whitening matrices and stored points."""
        keys = sorted(self._stored)
        width = len(self._whitening[keys[0]]) if keys else 0
        return {
            "n_stored": np.array(self._n_stored),
            "elements": np.array(keys, dtype=np.int64),
            "counts": np.array([len(self._stored[key]) for key in keys], dtype=np.int64),
            "whitening": np.stack([self._whitening[key] for key in keys]) if keys else np.zeros((0, 0, 0)),
            "stored": np.concatenate([self._stored[key] for key in keys]) if keys else np.zeros((0, width)),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The one with these points."""
        made = cls(int(state["n_stored"]))
        ends = np.cumsum(state["counts"])
        for k, key in enumerate(state["elements"]):
            made._whitening[int(key)] = np.array(state["whitening"][k], dtype=np.float64)
            made._stored[int(key)] = np.array(state["stored"][ends[k] - state["counts"][k] : ends[k]], dtype=np.float64)
        return made


UNCERTAINTIES: dict[str, type[CommitteeUncertainty] | type[LastLayerUncertainty] | type[LatentDistance]] = {
    kind.name: kind for kind in (CommitteeUncertainty, LastLayerUncertainty, LatentDistance)
}
"""Implementations by name."""


def uncertainty_from_state(name: str, state: Mapping[str, NDArray[Any]]) -> AtomUncertainty:
    """The implementation of this name with this state.

    Raises:
        InputError: Unknown name, or an incomplete state.
    """
    if name not in UNCERTAINTIES:
        raise InputError("unknown uncertainty", field="name", value=name, remedy=f"one of {', '.join(UNCERTAINTIES)}")
    try:
        return UNCERTAINTIES[name].from_state(state)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"does not belong to {name}: {error!r}", field="state", value=sorted(state)) from error


def farthest_points(points: FloatArray, n: int) -> NDArray[np.int64]:
    """Indices of up to `n` of ``(n_points, n_features)`` points, each the farthest from those before.

    The first is the farthest from the mean. Points that equal a chosen one are never chosen.
    """
    start = int(np.square(points - points.mean(axis=0)).sum(axis=1).argmax())
    chosen = [start]
    nearest = np.square(points - points[start]).sum(axis=1)
    while len(chosen) < n and nearest.max() > 0.0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
    return np.array(chosen, dtype=np.int64)


class _Placed:
    """Constants of a score for the atoms of the last batch: on a device they are placed once."""

    def __init__(self) -> None:
        self._last: tuple[Arrays, Numbers, list[list[Array]]] | None = None

    def of(self, arrays: Arrays, numbers: Numbers, build: Callable[[], list[list[NDArray[Any]]]]) -> list[list[Array]]:
        """What is built, where features are; on the host always anew, as rows of other atoms may be next."""
        if arrays.is_on_host:
            return build()
        if self._last is None or self._last[0] is not arrays or self._last[1] is not numbers:
            self._last = (arrays, numbers, [arrays.of(group) for group in build()])
        return self._last[2]


def _whitening(features: FloatArray) -> FloatArray:
    """``(n_features, n_features)`` matrix that features are multiplied with from the right."""
    covariance = np.atleast_2d(np.cov(features.T, bias=True))
    values, vectors = np.linalg.eigh(covariance)
    smallest = WHITENING_RIDGE * float(np.trace(covariance)) / len(covariance)
    if smallest <= 0.0:  # equal features only, as of free atoms: their size is the only scale there is
        smallest = max(float(np.square(features).mean()), np.finfo(np.float64).tiny)
    whitening: FloatArray = vectors / np.sqrt(np.maximum(values, smallest))
    return whitening


def _rows_by_element(numbers: Numbers) -> dict[int, NDArray[np.int64]]:
    return {int(z): np.flatnonzero(numbers == z) for z in np.unique(numbers)}


def _features(prediction: CommitteePrediction) -> Array:
    if prediction.features is None:
        raise InputError(
            "the prediction has none", field="features", remedy="evaluate member 0 of a committee that gives features"
        )
    return prediction.features


def _check(features: FloatArray, numbers: Numbers) -> None:
    if features.ndim != 2 or len(features) != len(numbers) or not len(features):
        raise InputError("must be (n_atoms, n_features)", field="features", value=features.shape)
    if not np.isfinite(features).all():
        raise InputError("must be finite", field="features", value="NaN or infinity")
