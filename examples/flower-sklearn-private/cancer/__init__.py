"""Logistic regression on the breast-cancer table that comes with scikit-learn, over Flower."""
