"""The benchmark: Sluice, the bare drivers and the usual templates, measured in turn on one replica set."""
