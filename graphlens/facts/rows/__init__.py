"""What a document lists: its ops, the graphs as columns, their sizes, and the programs."""
