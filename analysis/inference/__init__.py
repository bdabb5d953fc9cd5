"""Inference that respects clusters: resampling, permutation, corrected p-values. Plain numpy, no data frames."""
