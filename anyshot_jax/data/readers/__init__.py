"""Reading what others made: images, folder trees, descriptions, layouts of data sets."""
