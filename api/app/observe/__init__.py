"""What the service says of itself: health, statistics, metrics and logs."""
