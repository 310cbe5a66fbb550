"""ASE calculator, importers and exporters."""
