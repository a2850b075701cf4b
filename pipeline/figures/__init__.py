"""One look for every plot and page: themes, the PNG of a figure, pages that need nothing beside them."""
