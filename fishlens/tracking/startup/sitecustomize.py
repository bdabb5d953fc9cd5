"""Python runs this at its start where `fishlens track` has put this folder on the path: also in every child process.

It prepares to attach, takes this folder off the path again, and runs the `sitecustomize` that it stands before. A
Python of another environment, or of another age, has no fishlens to attach: nobody's mistake, so nothing is said.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (every interpreter start pays for an import)
sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != _HERE]  # noqa: PTH100

if "FISHLENS_TRACK" in os.environ:
    try:
        from fishlens.tracking.attach import attach
    except Exception as error:
        if sys.stderr is not None and '"process": %d' % os.getpid() in os.environ["FISHLENS_TRACK"]:  # noqa: UP031 (old Pythons read this, too)
            sys.stderr.write("fishlens: NOTHING WAS TRACKED: fishlens cannot be imported (%s)\n" % (error,))  # noqa: UP031
    else:
        attach()

_ours = sys.modules.pop("sitecustomize", None)
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ImportError as error:
    if error.name != "sitecustomize":
        raise
    if _ours is not None:
        sys.modules["sitecustomize"] = _ours
