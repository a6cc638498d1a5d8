"""For whoever has pictures: a classifier on a frozen encoder, and what predict and serve need."""
