"""From stored frames to the history of one series, full or thinned."""
