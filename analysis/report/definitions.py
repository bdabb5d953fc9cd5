"""What the words of the report mean."""

DEFINITIONS = "\n\n".join(
    (
        "Fisher information. F = 1/N Σ E[s sᵀ], with s the gradient of log p(y|x) of one example with respect to "
        "a block's parameters; tr(F) is its trace. Labels “exact” sum over the model's own label distribution, "
        "“mc” samples it; “empirical” takes the data's labels and “mode” the most probable one: these two are not "
        "the Fisher information.",
        "Block. The parameters of the task adapter in one layer, unless the estimator's table says otherwise. The "
        "head is a block of its own and is left out of sums over blocks.",
        "Normalised. The sum over the blocks that are trainable at a probe, divided by their number: the paper's "
        "plots. Raw traces are in the journals.",
        "Over and within schedules. A coefficient over schedules is of their means: six schedules are six "
        "observations. One within schedules asks whether of runs with the same schedule those with more of a "
        "feature score higher; what a seed does to its runs in every schedule is taken away too. Given the "
        "baselines: of what is left when source score, final loss and gradient norm are taken out of both sides.",
        "Corrected p. Largest of all: in how many arrangements the largest coefficient of all features is as "
        "large (Westfall and Young); features of one curve are near copies of each other, for each of which "
        "Holm's correction pays. The answer goes by it where there is one. Benjamini and Hochberg's is of the "
        "share of false findings.",
        "Runs that did not learn. A run did not learn the source (diverged) if its last validation score there is "
        "no more than two standard errors above guessing, or its loss stopped being a number; it collapsed in the "
        "targets if it did, and scores as guessing does there. Such runs count in every number, unless it is said "
        "that they do not.",
        "Runs and languages. Languages of one run are not independent observations: coefficients and differences "
        "are over runs. Where there are too few runs for a number, the report says so instead of printing it.",
    )
)
