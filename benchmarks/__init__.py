"""Speed, shown as ratios against peers and floors measured in the same run. See README.md."""
