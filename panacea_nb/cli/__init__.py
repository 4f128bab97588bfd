"""The command line: parse, call one function, print."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from ..errors import PanaceaError, RequestError

__all__ = ["main"]

DEBUG_VARIABLE = "PANACEA_NB_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``panacea-nb``.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name; that of this process by default.

    Returns
    -------
    int
        0 all done; 1 something failed or is blocked; 2 the request is invalid or nothing can be reduced; 3 interrupted.
    """
    from .parser import make_parser  # here, so that a broken installation ends in the message below

    asked = list(sys.argv[1:] if arguments is None else arguments)
    options = make_parser(asked).parse_args(asked)
    try:
        return options.run(options)
    except PanaceaError as error:
        _complain(str(error))
        return 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt:
        _complain("interrupted; run again to go on")
        return 3
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; keep Python from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        again = ": make room, then run the same command again: it goes on where it stopped" if error.errno == errno.ENOSPC else ""
        _complain(f"{error.strerror or error}{where}{again}")
        return 1


def _complain(message: str) -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1" and sys.exc_info()[0] is not None:
        raise  # noqa: PLE0704 - called from the handlers above only
    print(f"panacea-nb: {message}", file=sys.stderr)
