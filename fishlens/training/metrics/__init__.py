"""Scores in points (0-100) that equal those of the official evaluation scripts; no torch, no model."""
