"""One loader a file: the file name is the name of config.data."""
