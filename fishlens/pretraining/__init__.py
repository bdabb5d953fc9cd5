"""Pretraining: raw text, masked language modelling, encoders and language adapters made from it."""
