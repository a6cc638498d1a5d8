"""AnyShotClassifier: the estimator for whoever has images of classes."""
