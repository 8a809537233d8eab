"""From a request to its route, and from an exception to its answer."""
