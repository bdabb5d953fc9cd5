"""The embedded default: artificial languages at known distances, their tasks, and a small encoder for them."""
