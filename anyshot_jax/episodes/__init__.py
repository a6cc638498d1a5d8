"""From a data set to an update: sampling, augmentation, evaluation, optimisers."""
