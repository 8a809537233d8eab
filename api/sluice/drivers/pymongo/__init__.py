"""All that is PyMongo's own asynchronous API: each member's pool has its turnstile."""
