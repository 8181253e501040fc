"""What fills memories, and files."""
