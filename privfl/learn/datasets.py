"""Real tables for the demo, the tests and the benchmarks, split among named sites, with public schemas.

The breast-cancer reference ranges summarise the 30 features of the public table of the Wisconsin
Diagnostic Breast Cancer study (UCI Machine Learning Repository, data set 17, distributed with scikit-learn):
bounds are each feature's minimum and maximum, as scikit-learn's documentation prints them, rounded
outwards; centre and scale were computed once from the whole table, without labels, in two digits.
They stand for the reference ranges that a laboratory publishes with a measurement. They are constants
of this module and know no label; nothing is computed from rows when a table is split.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from privfl.errors import Misuse
from privfl.tasks.schema import Category, Column, Numeric, Schema

__all__ = [
    "breast_cancer_frame",
    "breast_cancer_schema",
    "breast_cancer_sites",
    "dealt",
    "digits_frame",
    "digits_schema",
    "digits_sites",
    "site_names",
]

Sites = tuple[dict[str, pd.DataFrame], Schema, pd.DataFrame]

_HOSPITALS = (
    "north", "south", "east", "west", "central", "harbour", "hillside", "riverside", "lakeside", "university",
)  # fmt: skip

# feature of scikit-learn's table: lower, upper, center, scale, unit
_BREAST_CANCER: dict[str, tuple[float, float, float, float, str]] = {
    "mean radius": (6.9, 29, 14, 3.5, "mm"),
    "mean texture": (9.7, 40, 19, 4.3, "grey levels"),
    "mean perimeter": (43, 190, 92, 24, "mm"),
    "mean area": (140, 2600, 650, 350, "mm2"),
    "mean smoothness": (0.052, 0.17, 0.096, 0.014, ""),
    "mean compactness": (0.019, 0.35, 0.1, 0.053, ""),
    "mean concavity": (0, 0.43, 0.089, 0.08, ""),
    "mean concave points": (0, 0.21, 0.049, 0.039, ""),
    "mean symmetry": (0.1, 0.31, 0.18, 0.027, ""),
    "mean fractal dimension": (0.049, 0.098, 0.063, 0.0071, ""),
    "radius error": (0.11, 2.9, 0.41, 0.28, "mm"),
    "texture error": (0.36, 4.9, 1.2, 0.55, "grey levels"),
    "perimeter error": (0.75, 22, 2.9, 2, "mm"),
    "area error": (6.8, 550, 40, 45, "mm2"),
    "smoothness error": (0.0017, 0.032, 0.007, 0.003, ""),
    "compactness error": (0.0022, 0.14, 0.025, 0.018, ""),
    "concavity error": (0, 0.4, 0.032, 0.03, ""),
    "concave points error": (0, 0.053, 0.012, 0.0062, ""),
    "symmetry error": (0.0078, 0.079, 0.021, 0.0083, ""),
    "fractal dimension error": (0.00089, 0.03, 0.0038, 0.0026, ""),
    "worst radius": (7.9, 37, 16, 4.8, "mm"),
    "worst texture": (12, 50, 26, 6.1, "grey levels"),
    "worst perimeter": (50, 260, 110, 34, "mm"),
    "worst area": (180, 4300, 880, 570, "mm2"),
    "worst smoothness": (0.071, 0.23, 0.13, 0.023, ""),
    "worst compactness": (0.027, 1.1, 0.25, 0.16, ""),
    "worst concavity": (0, 1.3, 0.27, 0.21, ""),
    "worst concave points": (0, 0.3, 0.11, 0.066, ""),
    "worst symmetry": (0.15, 0.67, 0.29, 0.062, ""),
    "worst fractal dimension": (0.055, 0.21, 0.084, 0.018, ""),
}


def site_names(sites: int) -> tuple[str, ...]:
    """Names of hospitals: north, south, east, west, central, …, then numbered ones."""
    numbered = (f"hospital{place}" for place in range(len(_HOSPITALS) + 1, sites + 1))
    return (*_HOSPITALS[:sites], *numbered)


def breast_cancer_schema(records: int) -> Schema:
    """30 measurements with public reference ranges and the label ``malignant``."""
    columns: dict[str, Column] = {
        name: Numeric(lower=low, upper=high, center=center, scale=scale, unit=unit)
        for name, (low, high, center, scale, unit) in _BREAST_CANCER.items()
    }
    columns["malignant"] = Category(classes=(False, True))
    return Schema(name="breast cancer", records=records, columns=columns)


def digits_schema(records: int) -> Schema:
    """64 pixels of 0 to 16 and the label ``digit``; one centre and scale for all pixels, as pen strokes vary."""
    columns: dict[str, Column] = {f"pixel{place}": Numeric(lower=0, upper=16, center=5, scale=6) for place in range(64)}
    columns["digit"] = Category(classes=tuple(range(10)))
    return Schema(name="digits", records=records, columns=columns)


def breast_cancer_frame() -> pd.DataFrame:
    """Scikit-learn's 569 rows with the label ``malignant``."""
    raw = load_breast_cancer()
    frame = pd.DataFrame(raw.data, columns=[str(name) for name in raw.feature_names])
    frame["malignant"] = raw.target == 0
    return frame


def digits_frame() -> pd.DataFrame:
    """Scikit-learn's 1797 images of 8x8 pixels with the label ``digit``."""
    raw = load_digits()
    frame = pd.DataFrame(raw.data, columns=[f"pixel{place}" for place in range(64)])
    frame["digit"] = raw.target.astype(np.int64)
    return frame


def breast_cancer_sites(sites: int = 5, seed: int = 1, test: float = 0.2) -> Sites:
    """Scikit-learn's breast-cancer table split among ``sites`` hospitals.

    Args:
        sites: 2 to 20 parts of equal size (to within one row).
        seed: decides who gets which row and what is held out.
        test: part of the rows held out, stratified by label.

    Returns:
        a frame per hospital, the schema (its declared size is the number of training rows, which this
        demonstration makes public), and the held-out frame.

    Raises:
        Misuse: a number of sites or a part that leaves no rows.
    """
    parts, held, records = _split(breast_cancer_frame(), "malignant", sites, seed, test)
    return parts, breast_cancer_schema(records), held


def digits_sites(sites: int = 5, seed: int = 1, test: float = 0.2) -> Sites:
    """Scikit-learn's 8x8 digits split among ``sites``; arguments and result as :func:`breast_cancer_sites`."""
    parts, held, records = _split(digits_frame(), "digit", sites, seed, test)
    return parts, digits_schema(records), held


def dealt(frame: pd.DataFrame, sites: int, seed: int) -> dict[str, pd.DataFrame]:
    """Shuffle rows and deal them to ``sites`` named hospitals in equal parts (to within one row)."""
    shuffled = frame.sample(frac=1.0, random_state=seed)
    rows = np.array_split(np.arange(len(shuffled)), sites)
    names = site_names(sites)
    return {name: shuffled.iloc[part].reset_index(drop=True) for name, part in zip(names, rows, strict=True)}


def _split(
    frame: pd.DataFrame, label: str, sites: int, seed: int, test: float
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, int]:
    if not (2 <= sites <= 20 and 0.05 <= test <= 0.5):
        raise Misuse(f"cannot split the table among {sites} sites with {test:g} held out; use 2 to 20 and 0.05 to 0.5")
    train, held = train_test_split(frame, test_size=test, random_state=seed, stratify=frame[label])
    return dealt(train, sites, seed), held.reset_index(drop=True), len(train)
