"""What the words of the report mean."""

DEFINITIONS = "\n\n".join(
    (
        "Fisher information. F = 1/N Σ E[s sᵀ], with s the gradient of log p(y|x) of one example with respect to a "
        "block's parameters; tr(F) is its trace. Labels “exact” sum over the model's own label distribution, “mc” "
        "samples it; “empirical” takes the data's labels and “mode” the most probable one: these two are not the "
        "Fisher information.",
        "Block. The parameters of the task adapter in one layer, unless the estimator's table says otherwise. The head "
        "is a block of its own and is left out of sums over blocks.",
        "Normalised. The sum over the blocks that are trainable at a probe, divided by their number: the paper's "
        "plots. Raw traces are in the journals.",
        "Runs and languages. Languages of one run are not independent observations: coefficients and differences are "
        "over runs. Where there are too few runs for a number, the report says so instead of printing it.",
    )
)
