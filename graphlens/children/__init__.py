"""Child processes: how one is started, watched and ended, and what it and its parent say to each other."""
