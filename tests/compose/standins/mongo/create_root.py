"""Create the first user, as the official image does with mongosh."""

import os

from pymongo import MongoClient

with MongoClient("mongodb://127.0.0.1:27017/?directConnection=true", serverSelectionTimeoutMS=30_000) as client:
    name, password = (os.environ[f"MONGO_INITDB_ROOT_{part}"] for part in ("USERNAME", "PASSWORD"))
    client.admin.command("createUser", name, pwd=password, roles=[{"role": "root", "db": "admin"}])
