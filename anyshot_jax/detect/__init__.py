"""Detectors of defects for whoever has images of normal products: `detector.AnomalyDetector`."""
