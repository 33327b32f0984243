"""Which streams a state directory has read: a topic that is deleted and made anew keeps its name and means other records.

Kept beside the checkpoints and not in them: it is the same for all of them, and no digest may depend on where a stream lies.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from streamlearn.disk import replace_file
from streamlearn.errors import PositionLostError

log = structlog.get_logger()


class Identities:
    """The file `source.json` of a state directory. Used by the prefetch thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recognise(self, found: Mapping[str, str]) -> None:
        """Return once all that was found is known, durably. Errors: PositionLostError for a name that stood for another."""
        known = self.check(found)
        if not found.items() <= known.items():
            self._write({**known, **found})

    def check(self, found: Mapping[str, str]) -> Mapping[str, str]:
        """What was known before; nothing is written. Errors: PositionLostError for a name that stood for another."""
        known = self._known()
        for name, identity in found.items():
            if known.get(name, identity) != identity:
                raise PositionLostError(
                    f"{name} was deleted and made anew since this state directory read it (it was {known[name]}, is {identity}"
                    "): saved positions mean other records now; start with an empty state directory, or read another topic"
                )
        return known

    def _known(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._path.read_bytes())["identities"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            log.warning("identities.unreadable", path=str(self._path), error=str(error), next_step="it is written anew")
            return {}

    def _write(self, identities: Mapping[str, str]) -> None:
        replace_file(self._path, json.dumps({"identities": dict(identities)}).encode(), after_power_cut="new")
