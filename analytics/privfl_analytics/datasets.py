"""Made-up hospitals for demonstrations, notebooks and tests: no row is about anyone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from privfl.errors import Misuse
from privfl.learn.datasets import site_names
from privfl.tasks import Schema
from privfl_analytics.view import Score

__all__ = ["RISK", "hospital_schema", "hospital_tables"]

#: A public model of readmission, as a consortium may have trained it: log-odds by age, blood pressure and HbA1c.
RISK = Score(
    name="risk",
    weights={"age": 0.035, "systolic": 0.012, "hba1c": 0.025},
    intercept=-6.2,
    link="logistic",
)

_COLUMNS: dict[str, Any] = {
    "age": {"lower": 18, "upper": 100, "center": 62, "scale": 15, "unit": "years"},
    "sex": {"classes": ["f", "m"]},
    "ward": {"classes": ["cardiology", "surgery", "oncology", "geriatrics"]},
    "bmi": {"lower": 14, "upper": 60, "center": 27, "scale": 5, "unit": "kg/m2"},
    "systolic": {"lower": 70, "upper": 230, "center": 135, "scale": 20, "unit": "mmHg", "missing": [999]},
    "hba1c": {"lower": 20, "upper": 150, "center": 45, "scale": 14, "unit": "mmol/mol"},
    "treatment": {"classes": ["standard", "new"]},
    "months": {"lower": 0, "upper": 36, "center": 18, "scale": 10, "unit": "months"},
    "event": {"classes": [False, True]},
    "readmitted": {"classes": [False, True]},
    "diagnosis": {"max_length": 3, "alphabet": "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"},
}


def hospital_schema(patients: int = 6000, *, max_rows: int = 1) -> Schema:
    """What the hospitals agreed on in public; ``patients`` is the declared size."""
    fields = {"name": "admissions", "version": 1, "records": patients, "columns": _COLUMNS}
    return Schema.from_dict({**fields, "subject": "patient", "max_rows": max_rows})


def hospital_tables(
    sites: int = 5, seed: int = 1, patients: int = 6000, *, drift: float = 0.0
) -> dict[str, pd.DataFrame]:
    """One table per hospital, one row per admission; sizes, case mix and missing values differ between them.

    Args:
        sites: 2 to 20. seed: of everything. patients: over all hospitals together.
        drift: how far later patients have moved, in standard deviations of age and HbA1c; for monitoring.

    Raises:
        Misuse: numbers out of range.
    """
    if not (2 <= sites <= 20 and 20 * sites <= patients <= 10**7):
        raise Misuse(f"{patients} patients in {sites} hospitals; use 2 to 20 hospitals of 20 patients or more")
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(sites, 12.0))
    sizes = np.maximum(20, np.floor(shares * patients)).astype(int)
    return {name: _table(rng, at, int(sizes[at]), drift) for at, name in enumerate(site_names(sites))}


def _table(rng: np.random.Generator, site: int, size: int, drift: float) -> pd.DataFrame:
    older = 3.0 * (site % 3) - 3.0 + 15.0 * drift
    age = np.clip(rng.normal(62 + older, 15, size), 18, 100).round()
    female = rng.random(size) < 0.5
    bmi = np.clip(rng.normal(27.0 - 0.02 * (age - 62), 4.5, size), 14, 60).round(1)
    systolic = np.clip(rng.normal(118 + 0.28 * age + 0.4 * (bmi - 27), 17, size), 70, 230).round()
    hba1c = np.clip(rng.gamma(10, 4.2, size) + 0.1 * (age - 40) + 14 * drift, 20, 150).round()
    new = rng.random(size) < 0.5
    hazard = 0.02 * np.exp(0.02 * (age - 62) - 0.5 * new)
    failure, left = rng.exponential(1 / hazard), rng.uniform(6, 36, size)
    logit = -6.2 + 0.035 * age + 0.012 * systolic + 0.025 * hba1c
    wards = np.array(["cardiology", "surgery", "oncology", "geriatrics"])
    mix = np.roll([0.4, 0.3, 0.2, 0.1], site)
    codes = np.array(["I50", "I21", "C34", "J44", "S72", "E11"])
    frame = pd.DataFrame(
        {
            "patient": [f"h{site}-{number}" for number in range(size)],
            "age": age,
            "sex": np.where(female, "f", "m"),
            "ward": rng.choice(wards, size, p=mix),
            "bmi": bmi,
            "systolic": systolic,
            "hba1c": hba1c,
            "treatment": np.where(new, "new", "standard"),
            "months": np.minimum(failure, left).round(1),
            "event": failure <= left,
            "readmitted": rng.random(size) < 1 / (1 + np.exp(-logit)),
            "diagnosis": rng.choice(codes, size, p=[0.3, 0.2, 0.18, 0.14, 0.1, 0.08]),
        }
    )
    frame.loc[rng.random(size) < 0.06, "bmi"] = np.nan
    frame.loc[rng.random(size) < 0.04, "systolic"] = 999
    frame.loc[rng.random(size) < 0.10 + 0.05 * (site == 1), "hba1c"] = np.nan
    frame.loc[rng.random(size) < 0.01, "ward"] = "day clinic"  # a class that nobody declared
    return frame
