"""Does a feature of the Fisher curve go with transfer? Coefficients over runs, with intervals."""
