"""`fishlens …`: one module per family of commands; what a command needs is imported when it runs.

Nothing imported at the top of these modules may load torch, transformers, pandas or matplotlib:
`fishlens --help` has to answer at once (tests/cli/test_start_up.py).
"""

import errno
import sys
from typing import Annotated

import typer

from fishlens import __version__, own_code
from fishlens.cli.check import check
from fishlens.cli.cite import cite
from fishlens.cli.evaluate import evaluate
from fishlens.cli.figures_settings import ignore_those_of_the_working_directory
from fishlens.cli.languages import pretrain, train_language_adapter
from fishlens.cli.listing import runs
from fishlens.cli.measure import measure
from fishlens.cli.output import quiet_streams, say
from fishlens.cli.pocket import pocket
from fishlens.cli.power import power
from fishlens.cli.recipes import recipes
from fishlens.cli.report import report
from fishlens.cli.runs import export, watch
from fishlens.cli.schedule import schedule
from fishlens.cli.sweep import sweep
from fishlens.cli.track import SETTINGS as TRACK_SETTINGS
from fishlens.cli.track import track
from fishlens.errors import InputError

# what a file system answers, whatever was asked of it
_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.EMFILE,
}  # fmt: skip

app = typer.Typer(
    name="fishlens",
    help="Track the Fisher information of every block while adapters train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"fishlens {__version__}")
        raise typer.Exit


@app.callback()
def _fishlens(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("track", context_settings=TRACK_SETTINGS)(track)
app.command("check")(check)
app.command("evaluate")(evaluate)
app.command("measure")(measure)
app.command("watch")(watch)
app.command("runs")(runs)
app.command("export")(export)
app.command("recipes")(recipes)
app.command("report")(report)
app.command("power")(power)
app.command("schedule")(schedule)
app.command("cite")(cite)
app.command("sweep")(sweep)
app.command("train-language-adapter")(train_language_adapter)
app.command("pretrain")(pretrain)
app.add_typer(pocket, name="pocket")


def main() -> None:
    """Entry point: bad input is one sentence on standard error and exit status 2, never a traceback."""
    own_code.refuse_all()
    ignore_those_of_the_working_directory()
    quiet_streams()
    try:
        app()
    except InputError as error:
        say(f"fishlens: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        say(
            f"fishlens: {error.strerror}: {error.filename or 'a file that was being written or read'}",
            err=True,
        )
        sys.exit(2)
