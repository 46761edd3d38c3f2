"""One file per verb of the command line, a function each."""
