"""The loop of a run, and everything that its workdir keeps."""
