"""The one exception that means: what you gave us is wrong, and here is what was expected."""


class InputError(ValueError):
    """Bad input, in one sentence that names the thing, what it was and what was expected.

    The command line prints the sentence alone and exits with status 2; Python code sees a `ValueError`.
    """
