"""The label gate: what is examined before a label becomes data, and what labels are held against later."""
