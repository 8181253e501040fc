"""Where the time of the judged step went: to which ops, on which path, and what a change could save."""
