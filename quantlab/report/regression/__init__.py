"""What a gate found, for people, pull requests, programs, and readers of JUnit XML."""
