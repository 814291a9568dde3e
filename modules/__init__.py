"""The platform's modules: plain Python, one package each, and the core they stand on. No Ray anywhere."""
