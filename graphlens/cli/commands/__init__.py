"""The commands, one file for each, with the names that ``graphlens.cli.Command`` lists."""
