"""What is recorded of who did what: events, and the chain of hashes that holds them."""
