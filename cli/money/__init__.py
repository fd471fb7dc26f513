"""What the commands of money do."""
