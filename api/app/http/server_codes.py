"""Codes of MongoDB's servers, by what they mean here; their names are those of the server's `error_codes.yml`."""

from __future__ import annotations

from collections.abc import Mapping

Codes = Mapping[int, str]

CHANGES_LOST: Codes = {
    280: "ChangeStreamFatalError",
    286: "ChangeStreamHistoryLost",
}
"""A change stream can't go on: what happened since isn't kept any more."""

KEY_STRING = range(50788, 50872)
"""The server gives each way in which one can be malformed a code of its own (key_string.cpp)."""
NO_CHANGE: Codes = {
    207: "InvalidUUID",
    260: "InvalidResumeToken",
    40649: "Location40649",
    51057: "Location51057",
    6189503: "Location6189503",
} | dict.fromkeys(KEY_STRING, "KeyString format error")
"""What a change stream was to go on from is none of its tokens."""

UNCONFIRMED: Codes = {
    64: "WriteConcernFailed",
    75: "WriteConcernLegacyOK",
    79: "UnknownReplWriteConcern",
    100: "UnsatisfiableWriteConcern",
}
"""A write that happened and was not confirmed."""

MISCONFIGURED: Codes = {
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    59: "CommandNotFound",
    67: "CannotCreateIndex",
    73: "InvalidNamespace",
    85: "IndexOptionsConflict",
    86: "IndexKeySpecsConflict",
    115: "CommandNotSupported",
    166: "CommandNotSupportedOnView",
    263: "OperationNotSupportedInTransaction",
    301: "DataCorruptionDetected",
    322: "APIVersionError",
    323: "APIStrictError",
    324: "APIDeprecationError",
    347: "APIMismatchError",
}
"""What is wrong with this service, with its rights, or with the data on the disk."""

OVERLOAD: Codes = {
    365: "TemporarilyUnavailable",
    402: "ResourceExhausted",
    433: "AdmissionQueueOverflow",
    462: "IngressRequestRateLimitExceeded",
    16500: "RequestRateTooLarge (Azure Cosmos DB)",
}
"""The member sheds load."""

ELECTION: Codes = {
    91: "ShutdownInProgress",
    94: "NotYetInitialized",
    95: "NotSecondary",
    189: "PrimarySteppedDown",
    # A member that has just started can't check the cluster time that the driver sends with each command yet.
    211: "KeyNotFound",
    216: "ElectionInProgress",
    10058: "LegacyNotPrimary",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11602: "InterruptedDueToReplStateChange",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
}
"""There is no primary, or another one than the driver knew."""

ENDED: Codes = {
    24: "LockTimeout",
    43: "CursorNotFound",
    46: "LockBusy",
    90: "CallbackCanceled",
    96: "OperationFailed",
    107: "LockFailed",
    112: "WriteConflict",
    117: "ConflictingOperationInProgress",
    136: "CappedPositionLost",
    143: "CursorInUse",
    175: "QueryPlanKilled",
    206: "NoSuchSession",
    209: "StaleClusterTime",
    213: "DuplicateSession",
    215: "DatabaseDropPending",
    217: "IncompleteTransactionHistory",
    225: "TransactionTooOld",
    226: "AtomicityFailure",
    228: "SessionTransferIncomplete",
    237: "CursorKilled",
    239: "SnapshotTooOld",
    244: "TransactionAborted",
    246: "SnapshotUnavailable",
    250: "StaleChunkHistory",
    251: "NoSuchTransaction",
    256: "TransactionCommitted",
    267: "PreparedTransactionInProgress",
    272: "MigrationConflict",
    276: "IndexBuildAborted",
    279: "ClientDisconnect",
    285: "IndexBuildAlreadyInProgress",
    290: "TransactionExceededLifetimeLimitSeconds",
    310: "PeriodicJobIsStopped",
    314: "ObjectIsBusy",
    355: "InterruptedDueToStorageChange",
    356: "TxnRetryCounterTooOld",
    358: "InternalTransactionNotSupported",
    363: "RetryableTransactionInProgress",
    11601: "Interrupted",
    12586: "BackgroundOperationInProgressForDatabase",
    12587: "BackgroundOperationInProgressForNamespace",
    46841: "ClientMarkedKilled",
    50915: "BackupCursorOpenConflictWithCheckpoint",
}
"""Somebody or something ended the operation: killOp, killAllSessions, a dropped collection, another write."""

TROUBLED: Codes = {
    1: "InternalError",
    6: "HostUnreachable",
    7: "HostNotFound",
    8: "UnknownError",
    63: "StaleShardVersion",
    70: "ShardNotFound",
    71: "ReplicaSetNotFound",
    74: "NodeNotFound",
    83: "RemoteResultsUnavailable",
    89: "NetworkTimeout",
    133: "FailedToSatisfyReadPreference",
    134: "ReadConcernMajorityNotAvailableYet",
    141: "SSLHandshakeFailed",
    145: "PooledConnectionsDropped",
    146: "ExceededMemoryLimit",
    149: "NoConfigPrimary",
    150: "StaleEpoch",
    172: "TransportSessionClosed",
    199: "ReplicaSetMonitorRemoved",
    202: "NetworkInterfaceExceededTimeLimit",
    203: "ShardingStateNotInitialized",
    205: "ClusterTimeFailsRateLimiter",
    230: "DNSHostNotFound",
    231: "DNSProtocolError",
    249: "StaleDbVersion",
    261: "TooManyLogicalSessions",
    262: "ExceededTimeLimit",
    264: "TooManyFilesOpen",
    292: "QueryExceededMemoryLimitNoDiskUseAllowed",
    303: "SplitHorizonChange",
    317: "ConnectionPoolExpired",
    343: "ShardCannotRefreshDueToLocksHeld",
    354: "LoadBalancerSupportMismatch",
    371: "UserWritesBlocked",
    384: "ConnectionError",
    388: "TransactionTooLargeForCache",
    398: "StreamTerminated",
    406: "MigrationBlockingOperationCoordinatorCleaningUp",
    407: "PooledConnectionAcquisitionExceededTimeLimit",
    412: "UpdatesStillPending",
    9001: "SocketException",
    13388: "StaleConfig",
    14031: "OutOfDiskSpace",
    56846: "ConfigServerUnreachable",
}
"""The members have trouble, among themselves or with their machines."""
