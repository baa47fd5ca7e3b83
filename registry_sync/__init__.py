"""The control plane: follows a registry, checks artifacts, and proposes changes to a gateway."""
