"""How the modules that the DAGs run as commands answer: one JSON object, or an error with gristmill's exit status."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from gristmill.errors import GristmillError


def answer(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `work` gives, printed; ends the process where it fails, with status 3 where nobody foresaw it: 1 would say that the data failed."""
    try:
        found = work(*arguments)
    except GristmillError as error:
        print(f"gristmill: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except Exception as error:  # noqa: BLE001  the last resort; the log has all of it
        traceback.print_exc()
        print(f"gristmill: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
    print(json.dumps(found))
    return found
