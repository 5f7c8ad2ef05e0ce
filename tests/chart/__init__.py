"""The chart, rendered by Helm's own engine and held against Kubernetes' own schemas."""
