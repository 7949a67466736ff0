"""The store of results: content-addressed, durable, shared by runs."""

from recipelang.store.artifact import Manifest, StoredTensor
from recipelang.store.records import ActionRecord
from recipelang.store.store import Store

__all__ = ["ActionRecord", "Manifest", "Store", "StoredTensor"]
