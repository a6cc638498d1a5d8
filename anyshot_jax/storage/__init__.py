"""Files, local or in cloud storage: writing whole, caches, npz, folders."""
