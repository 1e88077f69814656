"""The scikit-learn face: arrays in, a classifier out, and defaults that are chosen from the data."""

from vicinal.estimator.classifier import VicinalClassifier
from vicinal.estimator.defaults import EXTENT, NEAREST, neighbour_distance, neighbourhood_radius

__all__ = ["EXTENT", "NEAREST", "VicinalClassifier", "neighbour_distance", "neighbourhood_radius"]
