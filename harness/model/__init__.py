"""What is run and what is said of it: cases, counters, verdicts; the nouns of every stage."""
