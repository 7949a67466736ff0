"""What the store remembers of an action: which artifact it gave, and on what.

Example:
    >>> record = ActionRecord({"op": "cast"}, "ab" * 32, "torch", "cpu", 1)
    >>> ActionRecord.from_json(record.to_json()) == record
    True
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from recipelang.store.artifact import json_object

__all__ = ["ActionRecord"]

SCHEMA = "recipelang/action/1"


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One result of one action key.

    ``document`` is what the key hashes. ``artifact`` is the result's content id; ``backend`` is
    empty for what no backend computed, then ``device`` (``cpu gpu tpu``) and ``devices`` (how many)
    are empty and 0. ``run`` and ``seconds`` tell of the run that made it; they are no part of
    :attr:`identity`, so a result that is found again is recorded once.
    """

    document: Mapping[str, object]
    artifact: str
    backend: str = ""
    device: str = ""
    devices: int = 0
    run: str = field(default="", compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def identity(self) -> str:
        """The record's name in the store, sha256 hex."""
        text = json.dumps([self.artifact, self.backend, self.device, self.devices])
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> bytes:
        """The record as the store keeps it."""
        body = {
            "schema": SCHEMA, "document": dict(self.document), "artifact": self.artifact,
            "backend": self.backend, "device": self.device, "devices": self.devices,
            "run": self.run, "seconds": round(self.seconds, 3),
        }  # fmt: skip
        return (json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> ActionRecord:
        """Parse what :meth:`to_json` wrote. Raises ValueError on anything else."""
        body = json_object(data)
        if body.get("schema") != SCHEMA:
            raise ValueError(f"not an action record of schema {SCHEMA}")
        try:
            artifact = str(body["artifact"])
            if len(artifact) != 64:
                raise ValueError("an artifact id has 64 hexadecimal digits")
            return cls(
                body["document"], artifact, body["backend"], body["device"], int(body["devices"]),
                body["run"], float(body["seconds"]),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise ValueError(f"an action record without {error}") from error
