"""Programs for a MongoDB of our own: its secrets, its replica set and users, its backups. The API's image has them."""
