"""The FastAPI service: settings, routes, errors and logs on top of `sluice`."""
