"""What directions do, in numbers."""
