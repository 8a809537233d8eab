"""The FastAPI service: settings, routes, errors and logs on top of `sluice`."""

from app.observe import metric_values

metric_values.install()  # before any module of the service, or of yours, defines a metric
