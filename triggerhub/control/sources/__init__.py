"""Where manifests come from; each yields the whole picture anew after a change."""
