"""Create the first user, as the official image does with mongosh."""

import os

from pymongo import MongoClient

URL = "mongodb://127.0.0.1:27017/?directConnection=true"

with MongoClient[dict[str, object]](URL, serverSelectionTimeoutMS=30_000) as client:
    name, password = (os.environ[f"MONGO_INITDB_ROOT_{part}"] for part in ("USERNAME", "PASSWORD"))
    client.admin.command("createUser", name, pwd=password, roles=[{"role": "root", "db": "admin"}])
