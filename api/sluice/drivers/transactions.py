"""What a transaction starts with, whatever the connection string says of single operations, and what ends it."""

from __future__ import annotations

from pymongo import ReadPreference
from pymongo.client_session_shared import TransactionOptions
from pymongo.read_concern import ReadConcern

ALLOWED = frozenset({None, "local", "majority", "snapshot"})
"""Read concerns; https://www.mongodb.com/docs/manual/core/transactions/."""
ENDINGS = frozenset({"abortTransaction", "commitTransaction"})
"""Operations that end a transaction, by the drivers' names."""


def options(read_concern: ReadConcern) -> TransactionOptions:
    """For a client with this read concern: it holds in transactions, too, if it may. All of one is read and written on
    the primary; MongoDB allows nothing else.
    """
    concern = None if read_concern.level in ALLOWED else ReadConcern("local")
    return TransactionOptions(read_concern=concern, read_preference=ReadPreference.PRIMARY)
