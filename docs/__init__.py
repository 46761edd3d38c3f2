"""The chapters, and in site/ the program that builds the site from them."""
