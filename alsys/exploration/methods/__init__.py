"""Exploration methods: small plug-ins that decide where a walker starts, how hot it is and what pushes it."""
