"""What every resource needs of its collection."""
