"""What the workers know, how it is shared between them, and how it is shown."""
