"""Parts that anomaly detection and defect types share: memory bank, detector, residuals."""
