"""The model, and each node's part of the table."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

FEATURES, PUBLIC = 30, 119
# Centre and spread of each column, rounded, as published with the table: public numbers, of no hospital's own rows.
CENTRE = np.array([14, 19, 92, 655, 0.096, 0.104, 0.089, 0.049, 0.18, 0.063, 0.41, 1.2, 2.9, 40, 0.007, 0.025, 0.032,
                   0.012, 0.021, 0.004, 16, 26, 107, 880, 0.13, 0.25, 0.27, 0.11, 0.29, 0.084])  # fmt: skip
SPREAD = np.array([3.5, 4.3, 24, 350, 0.014, 0.053, 0.08, 0.039, 0.027, 0.007, 0.28, 0.55, 2, 45, 0.003, 0.018, 0.03,
                   0.006, 0.008, 0.003, 4.8, 6.1, 34, 570, 0.023, 0.16, 0.21, 0.066, 0.062, 0.018])  # fmt: skip


def load(partition: int, partitions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A node's rows, four fifths of them for training: features and labels of both parts."""
    features, labels = rows(slice(PUBLIC + partition, None, partitions))
    cut = len(labels) * 4 // 5
    return features[:cut], labels[:cut], features[cut:], labels[cut:]


def rows(which: slice) -> tuple[np.ndarray, np.ndarray]:
    """Some rows of the shuffled table; the first ``PUBLIC`` ones are the server's own, and no node has them."""
    features, labels = load_breast_cancer(return_X_y=True)
    mine = np.random.default_rng(7).permutation(len(labels))[which]
    return (features[mine] - CENTRE) / SPREAD, labels[mine]


def model_from(arrays: list[np.ndarray], penalty: float = 0.1) -> LogisticRegression:
    """A model that goes on from these coefficients."""
    model = LogisticRegression(C=penalty, max_iter=5, warm_start=True)
    model.classes_ = np.array([0, 1])
    model.coef_, model.intercept_ = arrays[0].copy(), arrays[1].copy()
    return model


def arrays_from(model: LogisticRegression) -> list[np.ndarray]:
    """Its coefficients and intercept."""
    return [model.coef_, model.intercept_]


def first_arrays() -> list[np.ndarray]:
    """A model that knows nothing."""
    return [np.zeros((1, FEATURES)), np.zeros(1)]


def loss_of(model: LogisticRegression, features: np.ndarray, labels: np.ndarray) -> float:
    """Mean logistic loss."""
    return float(log_loss(labels, model.predict_proba(features), labels=[0, 1]))
