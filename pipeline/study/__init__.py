"""The lectures' claims as experiments: ordinary runs, their measures, and a page that judges."""
