"""What is run and how it is judged: cases, counters, verdicts; the nouns of every stage."""
