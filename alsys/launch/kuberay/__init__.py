"""Kubernetes with KubeRay: the campaign as a RayJob, in a folder of Kustomize bases and an overlay."""
