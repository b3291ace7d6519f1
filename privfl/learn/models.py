"""Fitted scikit-learn estimators from coefficients, and back, without pickle.

An estimator is named by its public path and its parameters as JSON. A file or a peer can therefore
ask for a linear model of scikit-learn and for nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from privfl.declared import Declared
from privfl.errors import Malformed, Misuse
from privfl.tasks.schema import Class

__all__ = ["EstimatorRef", "fitted", "folded", "load_model", "save_model"]

Floats = npt.NDArray[np.float64]

_ROOMS = ("sklearn.linear_model", "sklearn.svm", "sklearn.discriminant_analysis")
_FORMAT = "privfl model 1"
#: Iterations of one local fit at most, whoever asks for more.
MAX_ITER = 10_000


class EstimatorRef(Declared):
    """A linear scikit-learn estimator by name, with its parameters as canonical JSON.

    Args:
        path: for example ``"sklearn.linear_model.Ridge"``.
        params: what ``get_params`` says, as JSON text with sorted keys.

    Raises:
        Misuse: a class elsewhere than in scikit-learn's linear rooms, or parameters that are not JSON.
    """

    path: str
    params: str = "{}"

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """The reference of an (unfitted or fitted) estimator; its parameters must be plain values."""
        name = type(estimator).__name__
        rooms = [room for room in _ROOMS if getattr(importlib.import_module(room), name, None) is type(estimator)]
        if not rooms:
            raise Misuse(
                f"{name} cannot be averaged or saved: choose an estimator with coef_ and intercept_ from "
                + ", ".join(_ROOMS)
            )
        params = {key: _plain(key, value) for key, value in estimator.get_params(deep=False).items()}
        return cls(path=f"{rooms[0]}.{name}", params=_canonical(params))

    @field_validator("params")
    @classmethod
    def _is_canonical(cls, text: str) -> str:
        try:
            params = json.loads(text)
        except ValueError:
            raise ValueError("parameters are not JSON") from None
        if not isinstance(params, dict) or _canonical(params) != text:
            raise ValueError("parameters are not canonical JSON")
        if params.get("n_jobs") not in (None, 1):
            raise ValueError("n_jobs is each site's own business: leave it out")
        if isinstance(params.get("max_iter"), int) and not 1 <= params["max_iter"] <= MAX_ITER:
            raise ValueError(f"max_iter must lie in 1 to {MAX_ITER}: sites do not work without end for a stranger")
        return text

    @field_validator("path")
    @classmethod
    def _is_linear(cls, path: str) -> str:
        room, _, name = path.rpartition(".")
        kind = getattr(importlib.import_module(room), name, None) if room in _ROOMS else None
        from sklearn.base import BaseEstimator  # noqa: PLC0415 - half of a site's start, and no GLM needs it

        if not (isinstance(kind, type) and issubclass(kind, BaseEstimator)):
            raise ValueError(f"{path!r} is not an estimator of {', '.join(_ROOMS)}")
        return path

    def build(self) -> Any:
        """A fresh, unfitted estimator; raises Misuse if scikit-learn does not take the parameters."""
        room, _, name = self.path.rpartition(".")
        try:
            return getattr(importlib.import_module(room), name)(**json.loads(self.params))
        except TypeError:
            raise Misuse(f"the installed scikit-learn does not take these parameters of {name}") from None


def _canonical(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(key: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Misuse(f"the estimator's parameter {key!r} is not a plain value; give a number, text or None")


def fitted(
    reference: EstimatorRef, coef: Floats, intercept: Floats, classes: Sequence[Class] | None, features: Sequence[str]
) -> Any:
    """A fitted estimator with these coefficients, as if ``fit`` had found them.

    A template is fitted on a few made-up rows so that every attribute scikit-learn expects exists; then
    its coefficients are replaced.

    Args:
        coef: ``[k, d]`` in units of the raw features; k is 1 for two classes and for regression.
        intercept: ``[k]``.
        classes: in the order of ``coef``'s rows (two classes: the second is the positive one); None to regress.
        features: d column names, kept as ``feature_names_in_``.

    Raises:
        Misuse: the estimator is of the other kind, or has no coefficients that can be set.
    """
    estimator = template(reference, classes, features)
    if classes is not None:
        coef, intercept = _in_order(coef, intercept, list(classes), estimator.classes_.tolist())
    # scikit-learn's own shapes: regressors are flat, a model without intercept keeps a scalar 0
    estimator.coef_ = coef.reshape(np.shape(estimator.coef_)).astype(np.float64)
    own = np.shape(estimator.intercept_)
    estimator.intercept_ = intercept.reshape(own).copy() if own else np.float64(intercept.reshape(-1)[0])
    return estimator


def template(reference: EstimatorRef, classes: Sequence[Class] | None, features: Sequence[str]) -> Any:
    """An estimator fitted on made-up public rows; raises Misuse if it is not linear in settable coefficients."""
    estimator = reference.build()
    import pandas as pd  # noqa: PLC0415 - as above
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - as above

    if (classes is None and not is_regressor(estimator)) or (classes is not None and not is_classifier(estimator)):
        need = "a regressor" if classes is None else "a classifier"
        raise Misuse(f"{reference.path} is not {need}, which the label asks for")
    kinds = len(classes) if classes is not None else 2
    rows = 6 * kinds
    made_up = np.sin(np.arange(1, rows * len(features) + 1, dtype=np.float64)).reshape(rows, len(features))
    target = np.array(list(classes) * 6) if classes is not None else np.cos(np.arange(rows, dtype=np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            estimator.fit(pd.DataFrame(made_up, columns=list(features)), target)
            estimator.coef_ = np.array(estimator.coef_, dtype=np.float64)
            estimator.intercept_ = np.array(estimator.intercept_, dtype=np.float64)
        except (AttributeError, ValueError, TypeError):
            raise Misuse(f"{reference.path} has no coef_ and intercept_ that can be set; choose a linear one") from None
    return estimator


def _in_order(coef: Floats, intercept: Floats, declared: list[Class], sorted_: list[Class]) -> tuple[Floats, Floats]:
    if len(declared) == 2:
        sign = 1.0 if declared == sorted_ else -1.0
        return sign * coef, sign * intercept
    order = [declared.index(item) for item in sorted_]
    return coef[order], intercept[order]


def folded(coef: Floats, intercept: Floats, center: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Coefficients for raw features from those for ``(x - center) / scale``; shapes ``[k, d]`` and ``[k]``.

    Clamping to the bounds cannot be folded: on values out of bounds the raw model extrapolates.
    """
    raw = coef / scale
    return raw, intercept - raw @ center


def save_model(model: Any, path: str | Path) -> Path:
    """Write a fitted linear estimator as JSON: its name, parameters and numbers, with a checksum; replaces atomically.

    Raises:
        Misuse: not a fitted linear estimator of scikit-learn, or the folder cannot be written.
    """
    reference = EstimatorRef.of(model)
    if not hasattr(model, "coef_"):
        raise Misuse("the model is not fitted; there is nothing to save")
    body = {
        "format": _FORMAT,
        "path": reference.path,
        "params": reference.params,
        "classes": model.classes_.tolist() if hasattr(model, "classes_") else None,
        "names": [str(name) for name in getattr(model, "feature_names_in_", [])],
        # Python prints the shortest text that reads back to the same float64
        "coef": np.atleast_2d(np.asarray(model.coef_, dtype=np.float64)).tolist(),
        "intercept": np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64)).tolist(),
    }
    try:
        text = json.dumps({**body, "sha256": _checksum(body)}, sort_keys=True, allow_nan=False)
    except (ValueError, TypeError):
        raise Misuse("the model has numbers that are not finite, or classes that are not plain values") from None
    target = Path(path)
    try:
        _replace(target, text.encode())
    except OSError as error:
        raise Misuse(f"cannot write the model to {target}: {error.strerror}") from None
    return target


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body).encode()).hexdigest()


def _replace(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_model(path: str | Path) -> Any:
    """Read what :func:`save_model` wrote: a fitted scikit-learn estimator. Nothing in the file is executed.

    Raises:
        Misuse: no such file, or one that cannot be read.
        Malformed: not a model file, truncated or changed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read the model {path}: {error.strerror}") from None
    try:
        body = json.loads(data)
        if body.pop("sha256") != _checksum(body) or body["format"] != _FORMAT:
            raise ValueError("checksum or format")
        reference = EstimatorRef(path=body["path"], params=body["params"])
        coef, intercept = _numbers(body["coef"], 2), _numbers(body["intercept"], 1)
        names = body["names"] or [f"x{place}" for place in range(coef.shape[1])]
        model = fitted(reference, coef, intercept, body["classes"], names)
        if not body["names"]:
            del model.feature_names_in_
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, Misuse):
        raise Malformed(f"{path} is not a model that save_model wrote, or it is damaged; save it again") from None
    return model


def _numbers(listed: Any, dimensions: int) -> Floats:
    array = np.array(listed, dtype=np.float64)
    if array.ndim != dimensions or not array.size or not np.isfinite(array).all():
        raise ValueError("not finite numbers")
    return array
