"""The control plane's second listener: what its operators see and do, off the public port."""
