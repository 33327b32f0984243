"""Before the stream: a labelled corpus → episodes → a warm start."""
