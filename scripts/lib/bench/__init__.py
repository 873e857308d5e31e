"""What scripts/bench is made of; the standard library only."""
