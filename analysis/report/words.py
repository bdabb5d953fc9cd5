"""What features, baselines and outcomes are called on the page."""

LABELS = {
    "peak": "peak",
    "peak_step": "peak at step",
    "width": "width at half peak (steps)",
    "area": "area",
    "early_area": "early area",
    "final": "final level",
    "drop": "drop from peak",
    "decay_rate": "decay (per step)",
    "depth_centroid": "depth centroid",
    "order_agreement": "agreement with top-down (τ)",
}
BASELINE_WORDS = {
    "source": "score in the source",
    "final_loss": "final loss",
    "gradient_norm": "gradient norm",
}
OUTCOME_WORDS = {
    "source": "source",
    "average": "average without source",
    "lowest": "each run's own lowest",
}
