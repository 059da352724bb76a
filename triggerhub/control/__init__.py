"""Make true what the manifests say."""
