"""The ledger's books: what is followed of each interrupt, by who traces it."""
