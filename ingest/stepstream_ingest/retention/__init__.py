"""Age and deletion: raw points that go while their summaries stay, runs that go, and their garbage."""
