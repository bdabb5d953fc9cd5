"""The one exception that means: what you gave us is wrong, and here is what was expected."""


class InputError(ValueError):
    """Bad input, in one sentence that names the thing, what it was and what was expected.

    The command line prints the sentence alone and exits with status 2; Python code sees a `ValueError`.
    """


def first_line(error: BaseException, line: int = 0) -> str:
    """One line of somebody else's error that is not empty, for a sentence of ours; its kind where it says nothing."""
    lines = [text.strip() for text in said(error).splitlines() if text.strip()] or [type(error).__name__]
    return lines[min(line, len(lines) - 1)]


def said(error: BaseException | None) -> str:
    """What an error says; nothing where its own words fail."""
    try:
        return str(error)
    except Exception:
        return ""
