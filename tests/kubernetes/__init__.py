"""A real Kubernetes API with controllers and scheduler, for the chart; kwok plays the nodes, so no container runs."""
