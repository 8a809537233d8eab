"""Reports on the service's log: pool events, slow operations, errors. Standard library only."""
