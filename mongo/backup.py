"""Copy the service's database to standard output, or back from standard input.

A backup is read from one snapshot, so writes go on meanwhile and are in it either all or not at all. Restoring fills
new collections first and puts them in the old ones' place once all is there: a damaged file changes nothing. Only one
restore of a database runs at a time.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import bson
from pymongo import MongoClient
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError

from mongo import interruptions
from mongo.backup_format import FORMAT, OURS, BackupError, Document, Raw, brief
from mongo.restore_lock import described, living
from mongo.restoring import restore

EXIT_INTERRUPTED = 130


def dump(client: MongoClient[Document], name: str, target: BinaryIO, say: Callable[[str], None]) -> int:
    """Write a backup; how many documents are in it. A snapshot is kept for 5 minutes by default.

    Raises `BackupError` when collections are being replaced.
    """
    database = client[name]
    if (lock := living(database)) is not None:
        raise BackupError(f"{described(lock, name)} is under way; try again when it's done")
    found = [dict(info) for info in database.list_collections()]
    kept = sorted(
        (info for info in found if info["type"] == "collection" and not info["name"].startswith(("system.", OURS))),
        key=lambda info: str(info["name"]),
    )
    if others := sorted(f"{info['type']} {info['name']}" for info in found if info["type"] != "collection"):
        say(f"not in it: {', '.join(others)}; only collections are")
    count = 0
    with gzip.open(target, "wb", compresslevel=6) as file, client.start_session(snapshot=True) as session:
        file.write(bson.encode({"sluice_backup": FORMAT, "database": name, "time": datetime.now(UTC)}))
        for info in kept:
            collection = database.get_collection(info["name"], codec_options=Raw)
            indexes = list(database[info["name"]].list_indexes())
            file.write(bson.encode({"collection": info["name"], "options": info["options"], "indexes": indexes}))
            # Capped collections can't be read from a snapshot.
            for document in collection.find(session=None if info["options"].get("capped") else session):
                file.write(bson.encode({"document": document}))
                count += 1
        if not _same(database.list_collections(), kept):
            raise BackupError("collections were replaced meanwhile (a restore?); try again")
        file.write(bson.encode({"end": count}))
    target.flush()
    return count


def _same(found: object, kept: list[Document]) -> bool:
    """Whether the collections that were read are those that are there."""
    there = {info["name"]: info["info"].get("uuid") for info in found}  # type: ignore[attr-defined]
    return all(there.get(info["name"]) == info["info"].get("uuid") for info in kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("dump", "restore"))
    parser.add_argument("--url-file", type=Path, required=True, help="file that holds the connection string")
    parser.add_argument("--database", help="(default: the one that the connection string names)")
    given = parser.parse_args()

    def say(line: str) -> None:
        print(f"{given.action}: {line}", file=sys.stderr, flush=True)

    interruptions.raise_them()
    try:
        with MongoClient[Document](given.url_file.read_text().strip(), serverSelectionTimeoutMS=10_000) as client:
            database = client[given.database] if given.database else client.get_default_database()
            client.admin.command("ping")  # a restore would wait twice: for its lock, and to give it back
            if given.action == "dump":
                with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as target:
                    count = dump(client, database.name, target, say)
            else:
                count = restore(database, sys.stdin.buffer, say)
    except KeyboardInterrupt:
        say("interrupted; nothing was changed" if given.action == "restore" else "interrupted")
        return EXIT_INTERRUPTED
    except ServerSelectionTimeoutError as error:
        say(f"MongoDB can't be reached (is the stack up? ./scripts/up.sh): {brief(error)}")
        return 1
    except PyMongoError as error:
        say(brief(error))
        return 1
    except (BackupError, OSError) as error:
        say(str(error)[:1000])
        return 1
    say(f"{count:,} documents of database {database.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
