"""Copy the service's database to standard output, or back from standard input.

A backup is gzipped BSON: a head, per collection its options, indexes and documents, and an end with their number. It
is read from one snapshot, so writes go on meanwhile and are in it either all or not at all. Restoring fills new
collections first and puts them in the old ones' place once the end was seen: a damaged file changes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

FORMAT = 1
BATCH_BYTES = 4 << 20
DRAFT = "restoring."
Document = dict[str, Any]
Raw = CodecOptions(RawBSONDocument)


class BackupError(Exception):
    """The file is no backup, or not a whole one."""


def dump(client: MongoClient[Document], name: str, target: BinaryIO) -> int:
    """Write a backup; how many documents are in it. A snapshot is kept for 5 minutes by default."""
    database = client[name]
    count = 0
    described = sorted(database.list_collections(filter={"type": "collection"}), key=lambda info: str(info["name"]))
    with gzip.open(target, "wb", compresslevel=6) as file, client.start_session(snapshot=True) as session:
        file.write(bson.encode({"sluice_backup": FORMAT, "database": name, "time": datetime.now(UTC)}))
        for info in described:
            if info["name"].startswith(("system.", DRAFT)):
                continue
            indexes = list(database[info["name"]].list_indexes())
            file.write(bson.encode({"collection": info["name"], "options": info["options"], "indexes": indexes}))
            for document in database.get_collection(info["name"], codec_options=Raw).find(session=session):
                file.write(bson.encode({"document": document}))
                count += 1
        file.write(bson.encode({"end": count}))
    return count


def restore(database: Database[Document], source: BinaryIO) -> int:
    """Replace the collections that the backup has; how many documents they got. Raises `BackupError`."""
    try:
        return _restore(database, source)
    except (OSError, EOFError, LookupError, zlib.error, bson.errors.InvalidBSON) as error:
        raise BackupError(f"the backup is damaged ({error}); nothing was changed") from error
    finally:
        with suppress(PyMongoError):  # which is what ended it, then
            _drop_drafts(database)


def _restore(database: Database[Document], source: BinaryIO) -> int:
    records = _records(source)
    head = next(records, None)
    if head is None or head.get("sluice_backup") != FORMAT:
        raise BackupError("this is no backup that backup.sh made")
    names: list[str] = []
    count, end = 0, None
    batch: list[RawBSONDocument] = []
    size = 0
    for record in records:
        if "document" in record:
            batch.append(record["document"])
            size += len(record["document"].raw)
            count += 1
        if batch and (size > BATCH_BYTES or "document" not in record):
            _draft(database, names[-1]).insert_many(batch, ordered=False)
            batch, size = [], 0
        if "collection" in record:
            names.append(str(record["collection"]))
            _create(database, names[-1], _plain(record))
        end = record.get("end", end)
    if end != count:
        raise BackupError("the backup ends too early; nothing was changed")
    for name in names:
        database[DRAFT + name].rename(name, dropTarget=True)
    return count


def _records(source: BinaryIO) -> Iterator[RawBSONDocument]:
    with gzip.open(source, "rb") as file:
        yield from bson.decode_file_iter(cast("IO[bytes]", file), Raw)


def _plain(record: RawBSONDocument) -> Document:
    return bson.decode(record.raw)


def _draft(database: Database[Document], name: str) -> Any:
    """Documents go in as they are, to a majority of the members."""
    return database.get_collection(DRAFT + name, codec_options=Raw, write_concern=WriteConcern("majority"))


def _drop_drafts(database: Database[Document]) -> None:
    """Those of a restore that was killed, too."""
    for name in database.list_collection_names():
        if name.startswith(DRAFT):
            database.drop_collection(name)


def _create(database: Database[Document], name: str, described: Document) -> None:
    database.drop_collection(DRAFT + name)
    options = {key: value for key, value in described["options"].items() if key != "uuid"}
    database.command("create", DRAFT + name, **options)
    indexes = [{key: value for key, value in index.items() if key != "ns"} for index in described["indexes"]]
    if others := [index for index in indexes if index["name"] != "_id_"]:
        database.command("createIndexes", DRAFT + name, indexes=others)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("dump", "restore"))
    parser.add_argument("--url-file", type=Path, required=True, help="file that holds the connection string")
    parser.add_argument("--database", help="(default: the one that the connection string names)")
    given = parser.parse_args()
    try:
        with MongoClient[Document](given.url_file.read_text().strip(), serverSelectionTimeoutMS=10_000) as client:
            database = client[given.database] if given.database else client.get_default_database()
            if given.action == "dump":
                count = dump(client, database.name, sys.stdout.buffer)
            else:
                count = restore(database, sys.stdin.buffer)
    except (BackupError, PyMongoError, OSError) as error:
        print(f"{given.action}: {str(error)[:300]}", file=sys.stderr)
        return 1
    print(f"{given.action}: {count:,} documents of database {database.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
