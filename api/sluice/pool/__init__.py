"""Who may take a connection, in which order, and how many there may be."""
