"""The long-running stream processor: readings in, scores and alerts out."""
